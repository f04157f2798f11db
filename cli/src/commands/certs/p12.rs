//! `gw certs p12`.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{P12, make};
use crate::certs::p12::{self, Contents};
use crate::certs::store::Store;
use crate::exit::{Code, WithCode};

pub fn run(args: &P12) -> anyhow::Result<Code> {
    let store = Store::new(&args.folder.out, args.folder.force);
    let pair = store.read(&args.name)?;
    let unreadable = |what: &str| {
        WithCode(Code::Usage, format!("`{}` holds no {what} in PEM", store.certificate(&args.name).display()))
    };
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|_| unreadable("private key"))?;
    let mut chain = certificates(&pair.certificate).ok_or_else(|| unreadable("certificate"))?;
    // One file is enough to trust the other side too.
    if store.has(make::CA) {
        chain.extend(certificates(&store.read(make::CA)?.certificate).unwrap_or_default());
    }
    let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    let contents = Contents { name: &args.name, key: key.secret_der(), certificates: &chain };
    let password = p12::password()?;
    let bytes = p12::write(&contents, &password)?;
    let [file, secret] = ["p12", "p12-password"].map(|kind| format!("{}.{kind}", args.name));
    // The password first: a file that nobody can open is of no use.
    store.write_private(&[(&secret, password.as_bytes()), (&file, &bytes)])?;
    let (file, secret) = (store.file(&file), store.file(&secret));
    println!("{}", file.display());
    println!("{}", secret.display());
    println!("\nUse it (the password is in the second file, which only you can read):");
    println!(
        "  curl --cert-type P12 --cert {}:\"$(cat {})\" https://localhost:8443/",
        file.display(),
        secret.display()
    );
    println!("  keytool -list -keystore {} -storepass:file {}", file.display(), secret.display());
    Ok(Code::Ok)
}

/// All certificates of a PEM file; `None` if there is none.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}
