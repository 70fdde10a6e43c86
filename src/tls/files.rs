//! PEM files, and what is made of them for as long as they don't change.

use parking_lot::Mutex;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
#[cfg(feature = "server")]
use tokio_rustls::rustls::pki_types::CertificateRevocationListDer;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// By which a changed file is recognized: its time and length; `None` if there is none.
type Stamp = Option<(SystemTime, u64)>;

/// Something that is made of files, and made again when one of them has changed.
pub(super) struct Watched<T> {
    files: Vec<PathBuf>,
    made: Mutex<Option<(Vec<Stamp>, Arc<T>)>>,
}

impl<T> Watched<T> {
    pub(super) fn new(files: Vec<PathBuf>) -> Watched<T> {
        Watched { files, made: Mutex::default() }
    }

    /// What `make` made last, or makes now. The files are small and asked for once a connection.
    ///
    /// # Errors
    /// Those of `make`, if it has never worked. Once it has, files that are half written must not cut anybody off.
    pub(super) fn get(&self, make: impl Fn() -> Result<T, String>) -> Result<Arc<T>, String> {
        let stamps = self.files.iter().map(|file| stamp(file)).collect::<Vec<_>>();
        let last = self.made.lock().clone();
        if let Some((seen, made)) = &last
            && *seen == stamps
        {
            return Ok(Arc::clone(made));
        }
        match (make(), last) {
            (Ok(made), _) => {
                let made = Arc::new(made);
                *self.made.lock() = Some((stamps, Arc::clone(&made)));
                Ok(made)
            }
            (Err(error), Some((_, made))) => {
                tracing::warn!(error, "certificates have changed and are not usable; the ones before are used on");
                *self.made.lock() = Some((stamps, Arc::clone(&made)));
                Ok(made)
            }
            (Err(error), None) => Err(error),
        }
    }
}

fn stamp(file: &Path) -> Stamp {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// All certificates of a file, which must have one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    match all::<CertificateDer<'static>>(file)? {
        none if none.is_empty() => Err(format!("{}: there is no certificate in it", file.display())),
        certificates => Ok(certificates),
    }
}

/// All revocation lists of a file, which may have one in DER as well.
#[cfg(feature = "server")]
pub(super) fn revocations(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    match all::<CertificateRevocationListDer<'static>>(file)? {
        none if none.is_empty() => {
            let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok(vec![bytes.into()])
        }
        lists => Ok(lists),
    }
}

/// The first private key of a file.
pub(super) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| explain(file, &error))
}

fn all<T: PemObject>(file: &Path) -> Result<Vec<T>, String> {
    let items = T::pem_file_iter(file).map_err(|error| explain(file, &error))?;
    items.collect::<Result<_, _>>().map_err(|error| explain(file, &error))
}

fn explain(file: &Path, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("{}: {error}", file.display()),
        other => format!("{}: {other}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again_when_they_change_and_a_broken_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cert.pem");
        let watched = Watched::new(vec![file.clone()]);
        let read = || match fs::read_to_string(&file).map_err(|error| error.to_string())? {
            broken if broken.is_empty() => Err("half written".to_owned()),
            text => Ok(text),
        };
        assert!(watched.get(read).is_err(), "it never worked");
        fs::write(&file, "one").unwrap();
        let one = watched.get(read).unwrap();
        assert!(Arc::ptr_eq(&one, &watched.get(|| panic!("nothing has changed")).unwrap()));
        fs::write(&file, "").unwrap();
        assert_eq!(*watched.get(read).unwrap(), "one");
        fs::write(&file, "three").unwrap();
        assert_eq!(*watched.get(read).unwrap(), "three");
    }
}
