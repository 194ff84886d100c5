//! The envelope of backups: files that only those open to whom they are addressed.
//!
//! The format is age-encryption.org/v1 with X25519 recipients, so that the tools `age` and `rage`
//! open it as well. A recipient is public, `age1...`; its identity, `AGE-SECRET-KEY-1...`, is kept
//! by the operator, away from the service.

use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::{Decryptor, Encryptor, IdentityFile};
use thiserror::Error;
use zeroize::Zeroizing;

/// To whom an envelope is addressed.
#[derive(Debug, Clone)]
pub struct Recipient(age::x25519::Recipient);

impl FromStr for Recipient {
    type Err = EnvelopeFault;

    fn from_str(text: &str) -> Result<Self, EnvelopeFault> {
        text.parse().map(Self).map_err(|what: &'static str| EnvelopeFault::Recipient { what })
    }
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Why an envelope is not made or opened.
#[derive(Debug, Error)]
pub enum EnvelopeFault {
    /// Not `age1...`.
    #[error("this is no recipient of age, which begins with age1: {what}")]
    Recipient {
        /// What is wrong.
        what: &'static str,
    },
    /// Nobody.
    #[error("an envelope needs a recipient at least")]
    Nobody,
    /// Not a file of identities.
    #[error("this is no file of age identities")]
    Identities(#[source] io::Error),
    /// No file of identities that can be used as it is.
    #[error("these identities cannot be used here; give a file of AGE-SECRET-KEY-1 lines")]
    Unusable,
    /// Addressed to somebody else.
    #[error("this file is not addressed to that identity")]
    OtherRecipient,
    /// No envelope, or an altered one.
    #[error("this is no age file, or its head was altered")]
    Damaged(#[source] Box<age::DecryptError>),
    /// The file.
    #[error("the envelope cannot be read or written")]
    Io(#[from] io::Error),
}

/// A new identity: the text of its file, and the recipient that goes with it.
///
/// ```
/// use std::io::{Read, Write};
/// use assent::crypto::envelope;
/// let (identity, recipient) = envelope::new_identity();
/// let mut sealed = envelope::seal(&[recipient], Vec::new())?;
/// sealed.write_all(b"words")?;
/// let sealed = sealed.finish()?;
/// let mut words = String::new();
/// envelope::open(identity.as_bytes(), &sealed[..])?.read_to_string(&mut words)?;
/// assert_eq!(words, "words");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn new_identity() -> (Zeroizing<String>, Recipient) {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public();
    let secret = identity.to_string();
    let text = format!("# public key: {recipient}\n{}\n", secret.expose_secret());
    (Zeroizing::new(text), Recipient(recipient))
}

/// What is written to it goes into `out`, readable by the recipients alone.
pub struct Envelope<W: Write>(age::stream::StreamWriter<W>);

/// Begins an envelope.
///
/// # Errors
/// No recipient, or `out` fails.
pub fn seal<W: Write>(recipients: &[Recipient], out: W) -> Result<Envelope<W>, EnvelopeFault> {
    let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients);
    // Recipients of one kind go together; that there are some is all that can be missing.
    let encryptor = encryptor.map_err(|_nobody| EnvelopeFault::Nobody)?;
    Ok(Envelope(encryptor.wrap_output(out)?))
}

impl<W: Write> Envelope<W> {
    /// Writes the end, without which the envelope opens as one that was cut, and gives `out` back.
    ///
    /// # Errors
    /// `out` fails.
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

impl<W: Write> Write for Envelope<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Opens an envelope with a file of identities. Reading fails where the envelope was altered or
/// cut.
///
/// # Errors
/// No identities, no envelope, or one that is addressed to somebody else.
pub fn open(identities: impl BufRead, sealed: impl Read) -> Result<impl Read, EnvelopeFault> {
    let identities = IdentityFile::from_buffer(identities).map_err(EnvelopeFault::Identities)?;
    let identities = identities.into_identities().map_err(|_encrypted| EnvelopeFault::Unusable)?;
    let damaged = |fault| EnvelopeFault::Damaged(Box::new(fault));
    let decryptor = Decryptor::new(sealed).map_err(damaged)?;
    let identities = identities.iter().map(|identity| &**identity as &dyn age::Identity);
    decryptor.decrypt(identities).map_err(|fault| {
        if matches!(fault, age::DecryptError::NoMatchingKeys) {
            EnvelopeFault::OtherRecipient
        } else {
            damaged(fault)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(recipient: Recipient) -> Vec<u8> {
        let mut envelope = seal(&[recipient], Vec::new()).unwrap();
        envelope.write_all(&vec![7; 100_000]).unwrap();
        envelope.finish().unwrap()
    }

    fn read(identity: &str, sealed: &[u8]) -> Result<Vec<u8>, EnvelopeFault> {
        let mut words = Vec::new();
        open(identity.as_bytes(), sealed)?.read_to_end(&mut words)?;
        Ok(words)
    }

    #[test]
    fn an_envelope_opens_for_its_recipient_alone() {
        let (identity, recipient) = new_identity();
        let sealed = sealed(recipient);
        assert_eq!(read(&identity, &sealed).unwrap(), vec![7; 100_000]);
        let (other, _) = new_identity();
        assert!(matches!(read(&other, &sealed), Err(EnvelopeFault::OtherRecipient)));
        assert!(matches!(seal(&[], Vec::new()).err(), Some(EnvelopeFault::Nobody)));
        assert!("age1x".parse::<Recipient>().is_err());
    }

    #[test]
    fn an_envelope_that_was_cut_or_altered_does_not_read_to_its_end() {
        let (identity, recipient) = new_identity();
        let whole = sealed(recipient);
        for at in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(read(&identity, &altered).is_err(), "byte {at}");
            assert!(read(&identity, &whole[..at]).is_err(), "length {at}");
        }
    }
}
