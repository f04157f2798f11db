//! Listening on a laptop: on the loopback unless somebody says otherwise, with TLS beside clear text, and on another
//! port where the usual one is taken.

use std::io::ErrorKind;
use std::net::SocketAddr;

use gw_runtime::model::Gateway;
use gw_runtime::model::gateway::{Address, Listener as Wanted};
use gw_runtime::worker::listen::{self, Listener};

use super::super::{Args, settings};
use crate::exit::WithCode;

/// Binds every listener, and tells of those that are not as they were meant to be.
pub fn bind(args: &Args, gateway: &Gateway) -> Result<(Vec<Listener>, Vec<String>), WithCode> {
    let (mut bound, mut notes) = (Vec::new(), Vec::new());
    let tls_flags: Vec<Address> = args.listen_tls.iter().copied().map(Address::Ip).collect();
    for (tls, flags, port) in [(false, &args.listen, 8000), (true, &tls_flags, 8443)] {
        // What the user asks for is not negotiable.
        for addr in flags {
            bound.push(settings::bind(&Wanted::new(addr.clone(), tls))?);
        }
        if !flags.is_empty() {
            continue;
        }
        let mut wanted: Vec<Wanted> = gateway.listeners.iter().filter(|l| l.tls == tls).cloned().collect();
        if wanted.is_empty() {
            wanted.push(local(port, tls));
        }
        for mut listener in wanted {
            if std::mem::take(&mut listener.proxy_protocol) {
                notes.push(format!("{} takes requests without the PROXY protocol", listener.addr));
            }
            bound.push(match listen::bind(&listener) {
                Ok(listener) => listener,
                Err(e) => {
                    let why = match e.kind() {
                        ErrorKind::AddrInUse => "is taken",
                        ErrorKind::PermissionDenied => "needs privileges",
                        ErrorKind::AddrNotAvailable => "is no address of this machine",
                        _ => return settings::bind(&listener).map(|_| (bound, notes)),
                    };
                    let instead = settings::bind(&local(0, tls))?;
                    notes.push(format!("{} {why}, so this is {}", listener.addr, instead.addr));
                    instead
                }
            });
        }
    }
    Ok((bound, notes))
}

fn local(port: u16, tls: bool) -> Wanted {
    Wanted::new(Address::Ip(SocketAddr::from(([127, 0, 0, 1], port))), tls)
}
