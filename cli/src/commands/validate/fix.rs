//! `--fix`: writes the fixes that are safe, whole file or not at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use gw_runtime::diag::{Applicability, Diagnostic, Fix};
use gw_runtime::source::Sources;

use crate::exit::{Code, WithCode};
use crate::render::Secrets;

/// A text after its safe fixes.
#[derive(Debug, Default)]
pub struct Patch {
    pub text: String,
    /// `PATH:LINE:COL: `old` -> `new` (GW1002)`, one for each fix.
    pub changes: Vec<String>,
}

/// Applies the safe fixes of `diags` to the text that they are about. Of two that overlap the first is applied.
pub fn patch(sources: &Sources, secrets: &Secrets, text: &str, diags: &[Diagnostic]) -> Patch {
    let mut fixes: Vec<(&Diagnostic, &Fix)> = diags
        .iter()
        .filter_map(|d| Some((d, d.fix.as_ref()?)))
        .filter(|(_, f)| f.applicability == Applicability::Safe)
        .collect();
    fixes.sort_by_key(|(_, f)| (f.span.start, f.span.end));
    let mut out = Patch::default();
    let mut done = 0;
    for (d, fix) in fixes {
        let (start, end) = (fix.span.start as usize, fix.span.end as usize);
        let (Some(between), Some(old)) = (text.get(done..start), text.get(start..end)) else { continue };
        let file = sources.file(fix.span.file);
        let place = file.line_col(start);
        out.text.push_str(between);
        out.text.push_str(&fix.replacement);
        let what = match secrets.touch(fix.span) {
            true => "a secret value is mended".to_owned(),
            false => format!("`{}` is now `{}`", old.trim(), fix.replacement.trim()),
        };
        let (line, col) = (place.line, place.col);
        out.changes.push(format!("{}:{line}:{col}: {what} ({} {})", file.name, d.code.id, d.code.name));
        done = end;
    }
    out.text.push_str(&text[done..]);
    out
}

/// Replaces the file's content in one step. Standard input cannot be replaced.
pub fn store(path: &Path, text: &str) -> Result<(), WithCode> {
    if path.as_os_str() == "-" {
        return Err(WithCode(Code::Usage, "`--fix` cannot change standard input; name a file".to_owned()));
    }
    replace(path, text).map_err(|e| {
        WithCode(Code::Environment, format!("cannot write `{}`: {}", path.display(), crate::load::reason(&e)))
    })
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    // Through a symbolic link to the file itself, which then stays a link.
    let target = std::fs::canonicalize(path)?;
    let temporary = temporary_beside(&target);
    let result = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.set_permissions(std::fs::metadata(&target)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &target)
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// In the same directory, because a rename works only within a file system.
fn temporary_beside(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gw_runtime::diag::codes;
    use gw_runtime::source::Span;

    #[test]
    fn safe_fixes_are_applied_once_and_in_order() {
        let text = "a: 1\nb: 2\n";
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", text);
        let fix = |start, end, new: &str, applicability| {
            let span = Span::new(file, start, end);
            Diagnostic::new(&codes::UNKNOWN_FIELD, span, "x").fix(span, new, applicability)
        };
        let diags = [
            fix(5, 6, "bee", Applicability::Safe),
            fix(0, 1, "eh", Applicability::Safe),
            fix(0, 4, "overlapping", Applicability::Safe),
            fix(3, 4, "unsafe", Applicability::Unsafe),
        ];
        let patch = patch(&sources, &Secrets::default(), text, &diags);
        assert_eq!(patch.text, "eh: 1\nbee: 2\n");
        assert_eq!(patch.changes[1], "t.yaml:2:1: `b` is now `bee` (GW1002 unknown-field)");
        assert_eq!(patch.changes.len(), 2);
    }

    #[test]
    fn a_file_is_replaced_with_its_permissions() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("gw-fix-{}.yaml", std::process::id()));
        std::fs::write(&path, "old").expect("a temporary file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("own file");
        store(&path, "new").expect("own file");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "new");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        std::fs::remove_file(&path).expect("own file");
        assert!(store(Path::new("-"), "new").is_err());
    }
}
