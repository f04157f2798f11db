//! Descriptions of services: `.proto` files, compiled when the config is.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::diag::{Diagnostic, codes};
use crate::env::{Files, unread};
use crate::model::schema::Record;
use crate::policy::Cx;

/// The longest file, in bytes.
const LONGEST: u64 = 4 << 20;
/// Most files that one description may be made of.
const MOST: usize = 500;

/// What came of a field that names a `.proto` file.
#[derive(Debug)]
pub enum Proto {
    Read(DescriptorPool),
    /// No files are read in this run, or the file may be missing; nothing is known of the service.
    Unknown,
}

/// Compiles the file that a field names, with all that it imports. `None` if what is wrong was reported.
pub fn load(config: &Record, field: &str, cx: &mut Cx<'_>) -> Option<Proto> {
    let path = config.spanned_str(field)?;
    let Some(found) = cx.file(field, &path, LONGEST).ok()? else { return Some(Proto::Unknown) };
    let files = &cx.model.files;
    let name = found.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let roots = roots(&found.path, &files.locate(path.span.file, ""));
    let mut all = ChainFileResolver::new();
    all.add(Disk { files: files.clone(), roots, first: (name.clone(), found.text), left: Cell::new(MOST) });
    all.add(GoogleFileResolver::new());
    all.add(Api);
    let mut compiler = Compiler::with_file_resolver(all);
    // The last says what details of a failed call are made of.
    match compiler.open_file(&name).and_then(|c| c.open_file("google/rpc/status.proto")) {
        Ok(_) => Some(Proto::Read(compiler.descriptor_pool())),
        Err(error) => {
            // The compiler's `Debug` is its message with file, line and column.
            let what = format!("{error:?}");
            let what = what.lines().next().unwrap_or_default();
            let message = format!("`{field}`: `{}` does not compile: {what}", found.shown);
            let help =
                "imports are looked for in the file's folder and in those above it, up to the config's";
            cx.diags.push(Diagnostic::new(&codes::INVALID_VALUE, path.span, message).help(help));
            None
        }
    }
}

/// Folders that imports are looked for in: the file's own and those above it, up to the config's.
fn roots(file: &Path, config: &Path) -> Vec<PathBuf> {
    let own = file.parent().unwrap_or_else(|| Path::new(""));
    let mut roots = Vec::new();
    for folder in own.ancestors() {
        roots.push(folder.to_owned());
        if !folder.starts_with(config) || folder == config {
            break;
        }
    }
    roots
}

/// The files of the disk below the roots, a bounded number of them.
struct Disk {
    files: Files,
    roots: Vec<PathBuf>,
    /// The file that the config names, which was read already.
    first: (String, String),
    left: Cell<usize>,
}

impl FileResolver for Disk {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.first.0 {
            return File::from_source(name, &self.first.1);
        }
        let plain = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let left = self.left.get();
        if !plain || left == 0 {
            return Err(protox::Error::file_not_found(name));
        }
        for root in &self.roots {
            match self.files.read(&root.join(name), LONGEST) {
                Ok(text) => {
                    self.left.set(left - 1);
                    return File::from_source(name, &text);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(protox::Error::new(format!("`{name}`: {}", unread(&error)))),
            }
        }
        Err(protox::Error::file_not_found(name))
    }
}

/// Google's descriptions of the rules themselves, for those who do not keep them beside their own files.
pub struct Api;

impl FileResolver for Api {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let source = match name {
            "google/api/annotations.proto" => ANNOTATIONS,
            "google/api/http.proto" => HTTP,
            "google/api/httpbody.proto" => HTTP_BODY,
            "google/rpc/status.proto" => STATUS,
            _ => return Err(protox::Error::file_not_found(name)),
        };
        File::from_source(name, source)
    }
}

const ANNOTATIONS: &str = r#"syntax = "proto3";
package google.api;
import "google/api/http.proto";
import "google/protobuf/descriptor.proto";
extend google.protobuf.MethodOptions { HttpRule http = 72295728; }
"#;

const HTTP: &str = r#"syntax = "proto3";
package google.api;
message Http { repeated HttpRule rules = 1; bool fully_decode_reserved_expansion = 2; }
message HttpRule {
  string selector = 1;
  oneof pattern {
    string get = 2;
    string put = 3;
    string post = 4;
    string delete = 5;
    string patch = 6;
    CustomHttpPattern custom = 8;
  }
  string body = 7;
  string response_body = 12;
  repeated HttpRule additional_bindings = 11;
}
message CustomHttpPattern { string kind = 1; string path = 2; }
"#;

const HTTP_BODY: &str = r#"syntax = "proto3";
package google.api;
import "google/protobuf/any.proto";
message HttpBody { string content_type = 1; bytes data = 2; repeated google.protobuf.Any extensions = 3; }
"#;

const STATUS: &str = r#"syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
"#;
