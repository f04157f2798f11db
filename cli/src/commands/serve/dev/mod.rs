//! `gw serve --dev`: the production config, unchanged, on a laptop.
//!
//! What this machine cannot reach gets a stand-in: an embedded echo server for upstream hosts without an address, this
//! process's memory for a Redis that does not answer, a certificate of a development authority for TLS. Every stand-in
//! is shown, and so is a request to try for each route. A reload goes the same road again.

mod access_log;
mod authority;
mod banner;
mod credentials;
mod curl;
mod examples;
mod listeners;
mod reach;
mod stand_in;

use std::cell::{Ref, RefCell};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use gw_runtime::check::Checked;
use gw_runtime::model::Model;
use gw_runtime::model::gateway::Address;
use gw_runtime::tls::PemPair;
use gw_runtime::upstream::dns::Override;

use super::Args;
use crate::echo::{self, Answers, Echo};
use crate::exit::{Code, WithCode};
use authority::Authority;
use examples::Examples;
use stand_in::StandIn;

pub use access_log::Readable;
pub use listeners::bind;

/// The stand-ins of this run.
pub struct Dev {
    /// Runs until the gateway has drained.
    echo: Echo,
    /// `--resolve`; what it names needs no stand-in.
    resolve: Vec<Override>,
    authority: Authority,
    files: Vec<PathBuf>,
    /// Whether the flags give a certificate.
    has_certificate: bool,
    state: RefCell<State>,
    /// The stand-ins that the terminal shows.
    shown: RefCell<Vec<StandIn>>,
}

/// What the last load found.
#[derive(Default)]
struct State {
    stand_ins: Vec<StandIn>,
    certificate: Option<PemPair>,
    examples: Examples,
}

impl Dev {
    /// Starts the echo server and finds the authority.
    pub fn start(args: &Args) -> anyhow::Result<Self> {
        let no_echo = |e| WithCode(Code::Environment, format!("cannot start the embedded echo server: {e}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(no_echo)?;
        let canned = crate::commands::echo::canned(args.answers.as_deref())?;
        let answers = Answers { canned, ..Answers::default() };
        Ok(Self {
            echo: echo::spawn(listener, answers).map_err(no_echo)?,
            resolve: args.resolve.clone(),
            authority: Authority::find_or_make()?,
            files: args.files.clone(),
            has_certificate: args.tls_cert.is_some(),
            state: RefCell::default(),
            shown: RefCell::default(),
        })
    }

    /// Puts stand-ins into a model that has just been read.
    pub fn adapt(&self, model: &mut Model) -> anyhow::Result<()> {
        // Names of production are not this machine's to prove.
        model.gateway.acme = None;
        let stand_ins = stand_in::put(model, &self.resolve, self.echo.addr());
        let certificate = match self.has_certificate || model.gateway.tls.cert.is_some() {
            true => None,
            false => Some(self.authority.certificate_for(model)?),
        };
        *self.state.borrow_mut() = State { stand_ins, certificate, examples: Examples::default() };
        Ok(())
    }

    /// Makes examples from a config that holds.
    pub fn look(&self, model: &Checked<Model>) {
        self.state.borrow_mut().examples = examples::of(model, self.files.first());
    }

    /// The certificate for TLS listeners, unless flags or config have one.
    pub fn certificate(&self) -> Option<PemPair> {
        self.state.borrow().certificate.clone()
    }

    /// Where connections go instead: what the user said, then what is out of reach.
    pub fn overrides(&self) -> Vec<Override> {
        let ours = Ref::map(self.state.borrow(), |s| &s.stand_ins);
        self.resolve.iter().cloned().chain(ours.iter().filter_map(|s| s.route.clone())).collect()
    }

    /// What to show once the gateway listens. `notes` tell of listeners that are not where they should be.
    pub fn banner(&self, listening: &[(Address, bool)], notes: &[String], colour: bool) -> String {
        let state = self.state.borrow();
        self.shown.replace(state.stand_ins.clone());
        let ip = |(addr, tls): &(Address, bool)| match addr {
            Address::Ip(addr) => Some((*addr, *tls)),
            Address::Unix(_) => None,
        };
        let listening: Vec<_> = listening.iter().filter_map(ip).collect();
        let places = curl::Places::new(&listening, state.certificate.as_ref().map(|_| self.authority.path()));
        banner::Banner { files: &self.files, stand_ins: &state.stand_ins, places: &places, notes, colour }
            .render(&state.examples)
    }

    /// The stand-ins alone, for a reload; nothing if they are the ones that were shown last.
    pub fn changes(&self, colour: bool) -> Option<String> {
        let state = self.state.borrow();
        let before = self.shown.replace(state.stand_ins.clone());
        (before != state.stand_ins).then(|| banner::stand_ins(&state.stand_ins, colour))
    }
}
