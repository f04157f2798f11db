//! From files to a snapshot, with everything that the flags add. The same road at start and at every reload.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use gw_runtime::diag::{Diags, Severity, has_errors};
use gw_runtime::env::Env;
use gw_runtime::front::{self, LoadOptions};
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
    /// Whether any listener speaks TLS.
    tls: bool,
}

impl Loader {
    /// The loader for these arguments.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        Ok(Self {
            files: args.files.clone(),
            options: LoadOptions { allow_unsupported: args.allow_unsupported, ..LoadOptions::default() },
            shared: Arc::default(),
            trusted: args.trusted_ip.clone(),
            certificate: args.tls_cert.clone().zip(args.tls_key.clone()),
            flavor: args.router_flavor,
            dev: args.dev.then(|| Dev::start(args)).transpose()?,
            tls: !args.listen_tls.is_empty(),
        })
    }

    /// Loads the config. Findings go to standard error; `None` if there are errors.
    pub fn load(&self) -> anyhow::Result<Option<Snapshot>> {
        let started = Instant::now();
        let mut inputs = Vec::with_capacity(self.files.len());
        for path in &self.files {
            inputs.push(read(path)?);
        }
        let mut sources = Sources::default();
        let (mut model, mut diags) = front::load(&mut sources, &inputs, &Env::system(), &self.options);
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
        self.report(&sources, &diags, &secrets, started)?;
        snapshot.map(|s| self.finish(s)).transpose()
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
        if !self.tls && !snapshot.gateway.listeners.iter().any(|l| l.tls) && self.dev.is_none() {
            return Ok(snapshot);
        }
        let settings = &snapshot.gateway.tls;
        let from_config = settings.cert.clone().zip(settings.key.clone());
        let default = match self.certificate.clone().or(from_config) {
            Some((cert, key)) => Some((read_pem(&cert)?, read_pem(&key)?)),
            None => self.dev.as_ref().and_then(Dev::certificate),
        };
        let named = snapshot.certificates.iter().map(|c| (c.snis.as_slice(), c.pairs.as_slice())).collect();
        let config = server_config(&ServerCertificates { default, named }, settings).map_err(|e| {
            let help = "give --tls-cert and --tls-key, add `certificates` to the config, or make one with `gw certs`";
            WithCode(Code::Environment, format!("TLS cannot be served: {e}; {help}"))
        })?;
        snapshot.server_tls = Some(config);
        Ok(snapshot)
    }

    fn report(
        &self,
        sources: &Sources,
        diags: &Diags,
        secrets: &Secrets,
        started: Instant,
    ) -> anyhow::Result<()> {
        if diags.is_empty() {
            return Ok(());
        }
        let errors = diags.iter().any(|d| d.severity == Severity::Error);
        let files: Vec<FileOutcome> = self
            .files
            .iter()
            .map(|f| FileOutcome {
                name: f.display().to_string(),
                contents: String::new(),
                findings: diags.len(),
            })
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
        eprint!("{}", render::render(format, &report));
        Ok(())
    }

    /// Changes whenever a file does.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let certs = self.certificate.iter().flat_map(|(c, k)| [c, k]);
        for path in self.files.iter().chain(certs) {
            std::fs::read(path).ok().hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn read_pem(path: &Path) -> Result<String, WithCode> {
    std::fs::read_to_string(path)
        .map_err(|e| WithCode(Code::Environment, format!("cannot read `{}`: {}", path.display(), reason(&e))))
}
