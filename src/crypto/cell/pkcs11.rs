//! The root cell in a token: a hardware security module, reached through PKCS#11.
//!
//! ```text
//! token   objects with CKA_LABEL = the deployment's name, CKO_SECRET_KEY, generic, 32 bytes,
//!         private, sensitive, not extractable, generated in the token:
//!         CKA_ID "deployment"              one, stays
//!         CKA_ID "root" | epoch u64 BE     one, or two where a replacement is not finished
//! here    ROOT of an epoch = HMAC-SHA256(its object, "assent root" | epoch), made in the token
//!         deployment key   = HMAC-SHA256(its object, "assent deployment")
//! ```
//! No object's value ever leaves the token; what is derived from it does, and lives in this process
//! as any key does. Once an object is destroyed, nobody derives its ROOT again.
//!
//! # Crash argument
//! `prepare` generates one object, `retire_all_but` destroys all but one: the token does each whole
//! or not at all, as PKCS#11 says of session-independent objects. A crash between the two leaves
//! both, and the store's epoch says which is in force.
//!
//! # Limits
//! How durable, and how gone, is what the token makes of it: SoftHSM keeps objects in files that it
//! unlinks and does not overwrite. A token that was backed up by its own means holds old ROOTs.

use std::fmt;
use std::path::PathBuf;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use super::{CellError, DeploymentKey, Epoch, Passphrase, RootCell, RootKey, SecretKey};
use crate::crypto::secret::KEY_BYTES;

const DEPLOYMENT_ID: &[u8] = b"deployment";
const ROOT_ID: &[u8] = b"root";
const DEPLOYMENT_LABEL: &[u8] = b"assent deployment";
const ROOT_LABEL: &[u8] = b"assent root";

/// Where a [`TokenCell`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPlace {
    /// The PKCS#11 module, a shared library of the token's maker.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// What the deployment's objects are called in it.
    pub name: String,
    /// File of the user's PIN.
    pub pin: PathBuf,
}

impl fmt::Display for TokenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PKCS#11 token {:?}, keys {:?}", self.token, self.name)
    }
}

/// ROOT and the deployment key as objects of a PKCS#11 token.
pub struct TokenCell {
    place: TokenPlace,
    session: Session,
    deployment: DeploymentKey,
    /// Oldest first.
    roots: Vec<(Epoch, RootKey)>,
}

impl TokenCell {
    /// Generates a deployment key and the first ROOT in the token.
    ///
    /// # Errors
    /// The token holds objects of that name already, or see [`Self::open`].
    pub fn create(place: &TokenPlace) -> Result<Self, CellError> {
        let session = place.log_in()?;
        if !place.objects(&session, None)?.is_empty() {
            return Err(place.wrong(
                "the token holds keys of that name already, and they are left as they are: a store \
                 may depend on them",
            ));
        }
        place.generate(&session, &root_id(Epoch(1)))?;
        place.generate(&session, DEPLOYMENT_ID)?;
        Self::over(place, session)
    }

    /// Opens the cell.
    ///
    /// # Errors
    /// The module, the token or the PIN is not there or does not fit; the token does not hold one
    /// deployment key and one or two ROOTs of that name; or one of them could leave it.
    pub fn open(place: &TokenPlace) -> Result<Self, CellError> {
        let session = place.log_in()?;
        Self::over(place, session)
    }

    /// Whether the token answers, and lacks the deployment key or any ROOT.
    pub(super) fn is_half_destroyed(place: &TokenPlace) -> bool {
        let missing = |session: &Session| {
            let deployment = place.objects(session, Some(DEPLOYMENT_ID))?;
            Ok::<_, CellError>(deployment.is_empty() || place.roots(session)?.is_empty())
        };
        place.log_in().and_then(|session| missing(&session)).unwrap_or(false)
    }

    /// Destroys what is left of the keys of that name.
    pub(super) fn destroy_rest(place: &TokenPlace) -> Result<(), CellError> {
        let session = place.log_in()?;
        place.destroy_all(&session)
    }

    fn over(place: &TokenPlace, session: Session) -> Result<Self, CellError> {
        if place.objects(&session, None)?.is_empty() {
            return Err(place.wrong(
                "the token holds no keys of that name; make them with `assent keys init --config`",
            ));
        }
        let deployment = match place.objects(&session, Some(DEPLOYMENT_ID))?[..] {
            [object] => place.derive(&session, object, DEPLOYMENT_LABEL)?,
            _ => {
                return Err(place.wrong(
                    "the token does not hold one deployment key: an unfinished `assent keys init`, \
                     or keys that were deleted. Without it no store opens; if there is none yet, \
                     delete the objects of that name with the token's own tool and begin anew",
                ));
            }
        };
        let roots = place.roots(&session)?;
        if !(1..=2).contains(&roots.len()) || roots.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(place.wrong("the token does not hold one ROOT, or two of two epochs"));
        }
        let derived = roots.into_iter().map(|(epoch, object)| {
            let label = [ROOT_LABEL, &epoch.0.to_be_bytes()].concat();
            place.derive(&session, object, &label).map(|key| (epoch, RootKey(key)))
        });
        let roots = derived.collect::<Result<_, _>>()?;
        let deployment = DeploymentKey::of(deployment);
        Ok(Self { place: place.clone(), session, deployment, roots })
    }

    /// The ROOTs' objects, which must be those of [`Self::roots`]: a token does not keep other
    /// processes out, as a lock on a file does.
    fn objects(&self) -> Result<Vec<(Epoch, ObjectHandle)>, CellError> {
        let objects = self.place.roots(&self.session)?;
        let held = self.roots.iter().map(|(epoch, _)| *epoch);
        if objects.iter().map(|(epoch, _)| *epoch).ne(held) {
            return Err(self.place.wrong("another process changed the ROOTs in the token"));
        }
        Ok(objects)
    }
}

impl RootCell for TokenCell {
    fn kind(&self) -> &'static str {
        "pkcs11"
    }

    fn deployment(&self) -> &DeploymentKey {
        &self.deployment
    }

    fn roots(&self) -> &[(Epoch, RootKey)] {
        &self.roots
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<(), CellError> {
        if self.roots.len() > 1 || self.roots.iter().any(|(held, _)| *held >= epoch) {
            return Err(CellError::NotNext { epoch });
        }
        self.objects()?;
        let object = self.place.generate(&self.session, &root_id(epoch))?;
        let label = [ROOT_LABEL, &epoch.0.to_be_bytes()].concat();
        let root = RootKey(self.place.derive(&self.session, object, &label)?);
        self.roots.push((epoch, root));
        Ok(())
    }

    fn retire_all_but(&mut self, epoch: Epoch) -> Result<(), CellError> {
        if !self.roots.iter().any(|(held, _)| *held == epoch) {
            return Err(CellError::NoSuchEpoch { epoch });
        }
        for (_, object) in self.objects()?.into_iter().filter(|(held, _)| *held != epoch) {
            self.place.said("destroying a ROOT", self.session.destroy_object(object))?;
        }
        self.roots.retain(|(held, _)| *held == epoch);
        // A token that says yes and keeps the object would undo every erasure.
        self.objects().map(drop)
    }

    fn destroy(&mut self) -> Result<(), CellError> {
        self.roots.clear();
        self.place.destroy_all(&self.session)
    }
}

impl TokenPlace {
    /// Destroys every key of that name, and looks that none is left.
    fn destroy_all(&self, session: &Session) -> Result<(), CellError> {
        for object in self.objects(session, None)? {
            self.said("destroying a key", session.destroy_object(object))?;
        }
        if self.objects(session, None)?.is_empty() {
            return Ok(());
        }
        Err(self.wrong("the token keeps keys that it was told to destroy"))
    }

    fn log_in(&self) -> Result<Session, CellError> {
        let pin = Passphrase::read(&self.pin)?;
        let module = self.said("loading the module", Pkcs11::new(&self.module))?;
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        match module.initialize(arguments) {
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            begun => self.said("starting the module", begun)?,
        }
        let slot = self.slot(&module)?;
        let session = self.said("opening a session", module.open_rw_session(slot))?;
        let pin = RawAuthPin::new(Box::new(pin.bytes().to_vec()));
        match session.login_with_raw(UserType::User, &pin) {
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            done => self.said("logging in with the PIN", done)?,
        }
        Ok(session)
    }

    fn slot(&self, module: &Pkcs11) -> Result<Slot, CellError> {
        let slots = module.get_slots_with_initialized_token();
        let mut found = Vec::new();
        for slot in self.said("looking for tokens", slots)? {
            let info = self.said("asking a token its name", module.get_token_info(slot))?;
            if info.label().trim_end() == self.token {
                found.push(slot);
            }
        }
        match found[..] {
            [slot] => Ok(slot),
            [] => Err(self.wrong("the module knows no token of that label")),
            _ => Err(self.wrong("the module knows more than one token of that label")),
        }
    }

    fn objects(
        &self,
        session: &Session,
        id: Option<&[u8]>,
    ) -> Result<Vec<ObjectHandle>, CellError> {
        let mut template = vec![
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(true),
            Attribute::Label(self.name.clone().into_bytes()),
        ];
        template.extend(id.map(|id| Attribute::Id(id.to_vec())));
        self.said("looking for the keys", session.find_objects(&template))
    }

    /// Oldest first.
    fn roots(&self, session: &Session) -> Result<Vec<(Epoch, ObjectHandle)>, CellError> {
        let mut roots = Vec::new();
        for object in self.objects(session, None)? {
            let attributes = session.get_attributes(object, &[AttributeType::Id]);
            for attribute in self.said("asking a key its name", attributes)? {
                let Attribute::Id(id) = attribute else { continue };
                let epoch = id.strip_prefix(ROOT_ID).and_then(|epoch| epoch.try_into().ok());
                roots.extend(epoch.map(|epoch| (Epoch(u64::from_be_bytes(epoch)), object)));
            }
        }
        roots.sort_by_key(|(epoch, _)| *epoch);
        Ok(roots)
    }

    fn generate(&self, session: &Session, id: &[u8]) -> Result<ObjectHandle, CellError> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::ValueLen((KEY_BYTES as u64).into()),
            Attribute::Label(self.name.clone().into_bytes()),
            Attribute::Id(id.to_vec()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Modifiable(false),
            Attribute::Sign(true),
        ];
        let generated = session.generate_key(&Mechanism::GenericSecretKeyGen, &template);
        self.said("generating a key", generated)
    }

    /// A key of this process from one that stays in the token.
    fn derive(
        &self,
        session: &Session,
        object: ObjectHandle,
        label: &[u8],
    ) -> Result<SecretKey, CellError> {
        let asked = [
            AttributeType::Sensitive,
            AttributeType::NeverExtractable,
            AttributeType::AlwaysSensitive,
        ];
        let attributes = session.get_attributes(object, &asked);
        let attributes = self.said("asking how a key is kept", attributes)?;
        let kept = attributes.iter().filter(|attribute| {
            matches!(
                attribute,
                Attribute::Sensitive(true)
                    | Attribute::NeverExtractable(true)
                    | Attribute::AlwaysSensitive(true)
            )
        });
        if kept.count() != asked.len() {
            return Err(self.wrong(
                "a key could leave the token, or came from outside, so a copy may be elsewhere; \
                 use keys that `assent keys init` made",
            ));
        }
        let derived = session.sign(&Mechanism::Sha256Hmac, object, label).map(Zeroizing::new);
        let derived = self.said("deriving a key", derived)?;
        SecretKey::copy_from(&derived)
            .ok_or_else(|| self.wrong("the token's HMAC-SHA256 does not give 32 bytes"))
    }

    fn said<T>(&self, doing: &'static str, outcome: Result<T, Error>) -> Result<T, CellError> {
        outcome.map_err(|fault| CellError::Token {
            place: self.clone(),
            doing,
            source: Box::new(fault),
        })
    }

    fn wrong(&self, what: &'static str) -> CellError {
        CellError::TokenContent { place: self.clone(), what }
    }
}

fn root_id(epoch: Epoch) -> Vec<u8> {
    [ROOT_ID, &epoch.0.to_be_bytes()].concat()
}
