//! Listening on a laptop: on the loopback unless somebody says otherwise, with TLS beside clear text, and on another
//! port where the usual one is taken.

use std::io::ErrorKind;
use std::net::SocketAddr;

use gw_runtime::model::Gateway;
use gw_runtime::worker::listen::{self, Listener};

use super::super::{Args, settings};
use crate::exit::WithCode;

/// Binds every listener, and tells of those that are not where they were meant to be.
pub fn bind(args: &Args, gateway: &Gateway) -> Result<(Vec<Listener>, Vec<String>), WithCode> {
    let (mut bound, mut notes) = (Vec::new(), Vec::new());
    for (tls, flags, port) in [(false, &args.listen, 8000), (true, &args.listen_tls, 8443)] {
        // What the user asks for is not negotiable.
        for addr in flags {
            bound.push(settings::bind(*addr, tls)?);
        }
        if !flags.is_empty() {
            continue;
        }
        let configured = gateway.listeners.iter().filter(|l| l.tls == tls).map(|l| l.addr);
        let mut wanted: Vec<SocketAddr> = configured.collect();
        if wanted.is_empty() {
            wanted.push(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        for addr in wanted {
            bound.push(match listen::bind(addr, tls) {
                Ok(listener) => listener,
                Err(e) => {
                    let why = match e.kind() {
                        ErrorKind::AddrInUse => "is taken",
                        ErrorKind::PermissionDenied => "needs privileges",
                        ErrorKind::AddrNotAvailable => "is no address of this machine",
                        _ => return settings::bind(addr, tls).map(|_| (bound, notes)),
                    };
                    let instead = settings::bind(SocketAddr::from(([127, 0, 0, 1], 0)), tls)?;
                    notes.push(format!("{addr} {why}, so this is {}", instead.addr));
                    instead
                }
            });
        }
    }
    Ok((bound, notes))
}
