//! From files to a snapshot, with everything that the flags add. The same road at start and at every reload.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use gw_runtime::diag::{Diags, Severity, has_errors};
use gw_runtime::env::Env;
use gw_runtime::front::{self, Input, LoadOptions};
use gw_runtime::snapshot::Snapshot;
use gw_runtime::snapshot::shared::Shared;
use gw_runtime::source::Sources;
use gw_runtime::tls::{ServerCertificates, server_config};
use gw_runtime::upstream::dns::Override;
use gw_runtime::{check, compile, lint};
use ipnet::IpNet;

use super::dev::Dev;
use super::{Args, Flavor};
use crate::exit::{Code, WithCode};
use crate::load::{read, reason};
use crate::render::{self, FileOutcome, Format, Report, Secrets};

/// How long the allocator keeps freed memory for later use.
const KEPT: Duration = Duration::from_secs(1);

/// Lets the system have what a load has used and freed: several times what its snapshot needs. The allocator looks for
/// memory that has been free for a while when a thread ends, and an idle gateway ends none.
fn give_back_memory() {
    // Without a thread the memory stays, which harms nobody at once.
    let _ = std::thread::Builder::new().name("gw-give-back".into()).spawn(|| std::thread::sleep(KEPT * 2));
}

/// Everything that a load needs.
pub struct Loader {
    files: Vec<PathBuf>,
    options: LoadOptions,
    shared: Arc<Shared>,
    trusted: Vec<IpNet>,
    certificate: Option<(PathBuf, PathBuf)>,
    flavor: Option<Flavor>,
    /// Stand-ins, with `--dev`.
    pub dev: Option<Dev>,
    /// Whether any listener speaks TLS; once there is one, it stays.
    tls: Cell<bool>,
    /// Files that the config in force names, beside those of the arguments.
    named: RefCell<Vec<PathBuf>>,
    /// What standard input said: it can be read only once.
    stdin: RefCell<Option<Input>>,
}

/// What a load has come to. Findings went to standard error.
pub struct Loaded {
    /// `None` if there are errors.
    pub snapshot: Option<Snapshot>,
    /// Of the config's text, in hex digits.
    pub hash: String,
    /// The findings, in the shape of `gw validate --format json`.
    pub report: serde_json::Value,
}

impl Loader {
    /// The loader for these arguments.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        Ok(Self {
            files: args.files.clone(),
            options: LoadOptions {
                allow_unsupported: args.allow_unsupported,
                // With `--dev` the files of production are not there.
                allow_missing_files: args.dev,
                ..LoadOptions::default()
            },
            shared: Arc::default(),
            trusted: args.trusted_ip.clone(),
            certificate: args.tls_cert.clone().zip(args.tls_key.clone()),
            flavor: args.router_flavor,
            dev: args.dev.then(|| Dev::start(args)).transpose()?,
            tls: Cell::new(!args.listen_tls.is_empty()),
            named: RefCell::default(),
            stdin: RefCell::default(),
        })
    }

    /// Loads the config from its files.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        let loaded =
            self.load_inputs(&self.files.iter().map(|f| self.read(f)).collect::<Result<Vec<_>, _>>()?);
        give_back_memory();
        loaded
    }

    /// Loads a config that was handed in, in place of the files.
    pub fn load_text(&self, text: String) -> anyhow::Result<Loaded> {
        let loaded = self.load_inputs(&[Input::text("POST /config", text)]);
        give_back_memory();
        loaded
    }

    fn read(&self, path: &Path) -> Result<Input, WithCode> {
        if path.as_os_str() != "-" {
            return read(path);
        }
        let mut stdin = self.stdin.borrow_mut();
        match &*stdin {
            Some(input) => Ok(input.clone()),
            None => Ok(stdin.insert(read(path)?).clone()),
        }
    }

    /// The hash of a config of these texts.
    pub fn hash_of<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        texts.into_iter().for_each(|t| context.update(t.as_bytes()));
        context.finish().as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    fn load_inputs(&self, inputs: &[Input]) -> anyhow::Result<Loaded> {
        let started = Instant::now();
        let hash = Self::hash_of(inputs.iter().map(|i| &*i.text));
        let mut sources = Sources::default();
        let (mut model, mut diags) = front::load(&mut sources, inputs, &Env::system(), &self.options);
        if let Some(flavor) = self.flavor {
            model.gateway.router_flavor = flavor.into();
        }
        if let Some(dev) = self.dev.as_ref().filter(|_| !has_errors(&diags)) {
            dev.adapt(&mut model)?;
        }
        let mut secrets = Secrets::default();
        secrets.add(&sources, &model);
        let broken = has_errors(&diags);
        let mut advice = lint::run(&model, &sources, !broken, &|code| !lint::is_quiet(code));
        let (checked, found) = check::run(model);
        diags.extend(found);
        let mut snapshot = None;
        if let Some(checked) = checked.filter(|_| !has_errors(&diags)) {
            let (built, found) = compile::build(&checked, &self.shared);
            diags.extend(found);
            snapshot = built;
            if let Some(dev) = self.dev.as_ref().filter(|_| snapshot.is_some()) {
                dev.look(&checked);
            }
            diags.append(&mut advice);
        }
        render::sort(&mut diags);
        let report = self.report(inputs, &sources, &diags, &secrets, started)?;
        let snapshot = snapshot.map(|s| self.finish(s)).transpose()?;
        Ok(Loaded { snapshot, hash, report })
    }

    /// The state that outlives snapshots.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where connections go instead of to where names say.
    pub fn overrides(&self, args: &Args) -> Vec<Override> {
        self.dev.as_ref().map_or_else(|| args.resolve.clone(), Dev::overrides)
    }

    /// Lays the flags over the file.
    fn finish(&self, mut snapshot: Snapshot) -> anyhow::Result<Snapshot> {
        if !self.trusted.is_empty() {
            let gateway = &mut snapshot.gateway;
            gateway.trusted_ips.extend(&self.trusted);
            // Who trusts proxies by flag gets the header that proxies write; the file can say otherwise.
            if gateway.real_ip_header.eq_ignore_ascii_case("X-Real-IP") && !gateway.real_ip_recursive {
                gateway.real_ip_header = "X-Forwarded-For".to_owned();
                gateway.real_ip_recursive = true;
            }
        }
        let tls = self.tls.get() || self.dev.is_some() || snapshot.gateway.listeners.iter().any(|l| l.tls);
        self.tls.set(tls);
        let settings = &snapshot.gateway.tls;
        let acme_ca = snapshot.gateway.acme.as_ref().and_then(|a| a.ca.as_ref());
        let authorities = settings.upstream_ca.iter().chain(acme_ca).map(|ca| &ca.path.value);
        let files = [settings.cert.as_ref(), settings.key.as_ref(), settings.client_ca.as_ref()];
        *self.named.borrow_mut() =
            files.into_iter().flatten().chain(authorities).chain(&settings.ticket_keys).cloned().collect();
        if !tls {
            return Ok(snapshot);
        }
        let from_config = settings.cert.clone().zip(settings.key.clone());
        let default = match self.certificate.clone().or(from_config) {
            Some((cert, key)) => Some((read_pem(&cert)?, read_pem(&key)?)),
            None => self.dev.as_ref().and_then(Dev::certificate),
        };
        let named = snapshot.certificates.iter().map(|c| (c.snis.as_slice(), c.pairs.as_slice())).collect();
        let ordered = snapshot.acme.as_ref().map(|a| Arc::clone(&a.certificates));
        let certificates = ServerCertificates { default, named, ordered };
        let config = server_config(&certificates, settings, &self.shared.get()).map_err(|e| {
            let help = "give --tls-cert and --tls-key, add `certificates` to the config, or make one with `gw certs`";
            WithCode(Code::Environment, format!("TLS cannot be served: {e}; {help}"))
        })?;
        snapshot.server_tls = Some(config);
        Ok(snapshot)
    }

    fn report(
        &self,
        inputs: &[Input],
        sources: &Sources,
        diags: &Diags,
        secrets: &Secrets,
        started: Instant,
    ) -> anyhow::Result<serde_json::Value> {
        let errors = diags.iter().any(|d| d.severity == Severity::Error);
        let files: Vec<FileOutcome> = inputs
            .iter()
            .map(|i| FileOutcome { name: i.name.clone(), contents: String::new(), findings: diags.len() })
            .collect();
        let report = Report {
            sources,
            diags,
            files: &files,
            secrets,
            elapsed: started.elapsed(),
            colour: render::colour(),
        };
        // Warnings are short here: `gw validate` is the place to read them in full.
        let format = if errors { Format::Full } else { Format::Concise };
        if !diags.is_empty() {
            eprint!("{}", render::render(format, &report));
        }
        Ok(serde_json::from_str(&render::render(Format::Json, &report))?)
    }

    /// Changes whenever a file does. Looks at times and sizes only, so that it can be asked often; links are followed.
    pub fn fingerprint(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        let mut hasher = DefaultHasher::new();
        let named = self.named.borrow();
        let certs = self.certificate.iter().flat_map(|(c, k)| [c, k]);
        for path in self.files.iter().chain(certs).chain(&*named) {
            let seen = std::fs::metadata(path).ok();
            seen.map(|m| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec())).hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn read_pem(path: &Path) -> Result<String, WithCode> {
    std::fs::read_to_string(path)
        .map_err(|e| WithCode(Code::Environment, format!("cannot read `{}`: {}", path.display(), reason(&e))))
}
