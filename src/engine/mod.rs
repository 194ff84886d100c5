//! The use cases: verify, enrol, revoke, describe, apply. Each reads as the request's story and
//! holds no algorithm of its own.
//!
//! # Invariants
//! - A template enters the index after its commit is durable, and leaves it before its
//!   revocation is committed.
//! - A revocation waits for the enrolments it names that are between those two steps.
//! - What was begun on the store is finished even when the caller goes away: commits run on tasks
//!   that [`Engine::drain`] joins.
//! - Revocation takes no permit and waits in no queue that verification or enrolment can fill.

mod alternatives;
mod arrivals;
mod audit;
mod backup;
mod clock;
mod decide;
mod enrol;
mod evidence;
mod filing;
mod last_use;
mod lockout;
mod operating_point;
mod policy;
mod receipt;
mod revoke;
mod rules;
mod snapshot;
mod status;
mod verdict;
mod verify;

use std::hash::{BuildHasher, Hash, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use thiserror::Error;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use zeroize::Zeroizing;

pub use alternatives::{WatchedWay, Way, WayState};
pub use clock::ClockStatus;
pub use enrol::{Duplicate, EnrolCommand, EnrolError, Enrolled};
pub use evidence::{EvidenceAbout, EvidencePiece};
pub use filing::{ControllerFiling, FilingError, MarkCommand};
pub use operating_point::{GateReach, Outgrown};
pub use policy::{Applied, ApplyError, LivenessFault, NoticeError, OperatingPointFault};
pub use receipt::Receipt;
pub use revoke::{RevocationReceipt, RevokeError, RevokeTarget};
pub use snapshot::{SnapshotError, SnapshotSettings, SnapshotWritten};
pub use status::{EngineStatus, GatePlan, Held};
pub use verdict::{Decision, PadReport, PadVerdict, Timings, Verdict, VerifyCommand, VerifyError};

use self::snapshot::Loaded;
use crate::consent::{
    Calendar, Calibration, ConsentRefusal, Deployment, DeploymentMode, Policy, Profile,
};
use crate::index::{Care, Index, IndexError, SavedLinks};
use crate::pipeline::{Frame, Pipeline};
use crate::store::{OpenedRecord, Store, StoreError};
use crate::types::{EmbeddingError, Limits, ModelContract, RecordId, Revision, Timestamp};

/// One face in the form in which the caller has it.
pub enum Probe {
    /// A picture, frame or crop for the pipeline.
    Frame(Frame),
    /// An embedding that the caller computed.
    Embedding {
        /// As received, not normalised.
        values: Zeroizing<Vec<f32>>,
        /// The contract that the caller says made it.
        contract: ModelContract,
    },
}

impl Probe {
    /// Whether the face comes with what is around it.
    fn is_whole_frame(&self) -> bool {
        match self {
            Self::Frame(Frame::Encoded(_) | Frame::Raw(_)) => true,
            Self::Frame(Frame::Aligned(_)) | Self::Embedding { .. } => false,
        }
    }
}

/// Threads that look after the index's graph beside the requests.
const CARE_THREADS: usize = 1;

/// The running use cases over one store, index and pipeline.
pub struct Engine {
    limits: Limits,
    calibration: Calibration,
    policy: RwLock<Arc<policy::Standing>>,
    /// Held while a policy is applied, so that two documents never interleave.
    applying: tokio::sync::Mutex<()>,
    store: Store,
    index: Arc<Index>,
    pipeline: Pipeline,
    /// The newest revision that this process has applied.
    revision: AtomicU64,
    quarantined: Mutex<Vec<RecordId>>,
    /// Whether every record was opened since the start.
    scrubbed: AtomicBool,
    /// The graph's links out of the snapshot, until they are looked at.
    links: Mutex<Option<SavedLinks>>,
    /// Records that are dead in the index and whose revocation the store has not confirmed.
    limbo: Mutex<revoke::Limbo>,
    /// What was heard of the gates' alternatives.
    watch: alternatives::Watch,
    /// Failed attempts at claimed subjects.
    lockouts: lockout::Lockouts,
    /// Enrolments between commit and index.
    arriving: Arc<arrivals::Arrivals>,
    /// Where the controllers stand with the authority.
    filings: filing::Filings,
    /// Names the sources of frames to the pipeline, under a key that only this process has.
    feeds: RandomState,
    /// One enrolment at a time where duplicates are refused.
    duplicate_check: tokio::sync::Mutex<()>,
    clock: clock::Clock,
    last_use: last_use::LastUse,
    tasks: TaskTracker,
    started_at: Timestamp,
    /// The revision of the snapshot that the index came from.
    started_from: Option<Revision>,
}

/// What an engine is made of.
pub struct EngineParts {
    /// The rules.
    pub profile: Profile,
    /// Where templates and probes travel.
    pub mode: DeploymentMode,
    /// The bounds.
    pub limits: Limits,
    /// The opened store.
    pub store: Store,
    /// The empty index.
    pub index: Index,
    /// The warm pipeline.
    pub pipeline: Pipeline,
    /// Where a snapshot may lie to start from.
    pub snapshot: Option<PathBuf>,
    /// What deadlines are counted in.
    pub calendar: Calendar,
}

/// Why an engine could not start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored policy is not valid under this profile.
    #[error("the stored policy could not be read: {0}")]
    Policy(String),
    /// Records are held that the rules in force do not allow.
    #[error(
        "under profile {profile} and in this deployment {records} of the records that are held may \
         not be held; the first is {record}: {refusal}. Start under the rules that they were \
         enrolled under, withdraw them, and change the rules then"
    )]
    Rules {
        /// The profile in force.
        profile: String,
        /// How many.
        records: u64,
        /// One of them.
        record: RecordId,
        /// What stands against it.
        refusal: ConsentRefusal,
    },
    /// The model pack's calibration table is not usable.
    #[error("the model pack's calibration could not be read: {0}")]
    Calibration(String),
    /// The index could not take the templates.
    #[error("the index could not be built: {0}")]
    Index(#[from] IndexError),
}

impl Engine {
    /// Reads policy and templates from the store and builds the index.
    ///
    /// # Errors
    /// A store, policy, calibration or index that is not usable. One bad record is quarantined
    /// and counted, not fatal.
    pub async fn open(parts: EngineParts) -> Result<Arc<Self>, OpenError> {
        let EngineParts { profile, mode, limits, store, index, pipeline, snapshot, calendar } =
            parts;
        let calibration = calibration(&pipeline)?;
        let model = Some(pipeline.pack().contract.clone());
        let empty = Policy::under(profile).within(Deployment { mode, model });
        let mut facts = store.facts().await?;
        let clock = clock::Clock::open(&mut facts)?;
        let standing =
            policy::stored(&store, empty, &calibration, pipeline.judges_liveness()).await?;
        let filings = filing::Filings::of(&mut facts, calendar)?;
        let index = Arc::new(index);
        let Loaded { report, restored, links, revision: started_from } =
            snapshot::load(&store, &index, snapshot.as_deref()).await?;
        let quarantined: Vec<RecordId> = report.quarantined.iter().map(|(id, _)| *id).collect();
        for (record, reason) in &report.quarantined {
            tracing::warn!(%record, %reason, "record quarantined");
        }
        let last_use =
            last_use::LastUse::open(&mut facts, |record| index.describe(record).is_some())?;
        rules::check(&store, &index, &standing, &mut facts).await?;
        tracing::info!(
            templates = restored + report.loaded,
            opened = report.loaded,
            revision = %report.revision,
            "index built"
        );
        let watch = alternatives::Watch::load(&mut facts)?;
        let lockouts = lockout::Lockouts::load(&mut facts)?;
        Ok(Arc::new(Self {
            limits,
            calibration,
            policy: RwLock::new(Arc::new(standing)),
            applying: tokio::sync::Mutex::new(()),
            store,
            index,
            pipeline,
            revision: AtomicU64::new(report.revision.0),
            quarantined: Mutex::new(quarantined),
            scrubbed: AtomicBool::new(restored == 0),
            links: Mutex::new(links),
            limbo: Mutex::default(),
            watch,
            lockouts,
            arriving: Arc::default(),
            filings,
            feeds: RandomState::new(),
            duplicate_check: tokio::sync::Mutex::new(()),
            clock,
            last_use,
            tasks: TaskTracker::new(),
            started_at: Timestamp::now(),
            started_from,
        }))
    }

    /// Whether every part works: false for good after a fault that leaves the store in doubt or a
    /// panic in the pipeline.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.store.is_healthy() && self.pipeline.is_healthy() && !self.index.is_poisoned()
    }

    /// The bounds on requests.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The newest applied revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// Completes or measures the index's graph, on threads that may block.
    ///
    /// # Errors
    /// A poisoned index.
    pub async fn care_for_index(&self) -> Result<Care, IndexError> {
        let index = Arc::clone(&self.index);
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner).take();
        let care = move || {
            if let Some(links) = links {
                index.relink(&links, CARE_THREADS)?;
            }
            index.care(CARE_THREADS)
        };
        tokio::task::spawn_blocking(care).await.unwrap_or(Err(IndexError::Poisoned))
    }

    /// Looks whether there is space on the store's disk again, where there was not.
    pub async fn regain_space(&self) {
        self.store.regain_space().await;
    }

    /// Waits until every begun commit is finished, then closes the store: nothing can be committed
    /// from then on.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(fault) = self.keep_last_use().await {
            tracing::warn!(%fault, "months of last use could not be written");
        }
        if let Err(fault) = self.keep_mark().await {
            tracing::warn!(%fault, "how far time has come could not be written");
        }
        for saved in [self.save_lockouts().await, self.save_heartbeats().await] {
            if let Err(fault) = saved {
                tracing::warn!(%fault, "failed attempts or heartbeats of the end are not stored");
            }
        }
        self.store.close().await;
    }

    fn advance(&self, revision: Revision) {
        self.revision.fetch_max(revision.0, Ordering::AcqRel);
    }

    fn policy(&self) -> Arc<policy::Standing> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps [`Engine::drain`] waiting while it lives.
    fn task(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// What the pipeline calls the source that `name` names.
    fn feed_id(&self, name: impl Hash) -> u64 {
        self.feeds.hash_one(name)
    }

    fn embedding_of(
        &self,
        mut values: Zeroizing<Vec<f32>>,
        contract: &ModelContract,
    ) -> Result<crate::types::Embedding, ProbeFault> {
        let wanted = self.pipeline.contract();
        if contract != wanted {
            return Err(ProbeFault::Contract { wanted: wanted.clone() });
        }
        let embedding = crate::types::Embedding::normalise(std::mem::take(&mut *values))?;
        if embedding.width() == self.pipeline.width() {
            Ok(embedding)
        } else {
            Err(EmbeddingError::Width { width: embedding.width() }.into())
        }
    }
}

/// What is wrong with an embedding that a caller sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeFault {
    /// Not a direction of the right width.
    #[error(transparent)]
    Embedding(#[from] EmbeddingError),
    /// Made by another model.
    #[error("the embedding is of another model contract; this gallery holds {wanted}")]
    Contract {
        /// The gallery's contract.
        wanted: ModelContract,
    },
}

fn calibration(pipeline: &Pipeline) -> Result<Calibration, OpenError> {
    let unusable = |fault: &dyn std::fmt::Display| OpenError::Calibration(fault.to_string());
    let text = std::str::from_utf8(pipeline.calibration()).map_err(|fault| unusable(&fault))?;
    Calibration::parse(text).map_err(|fault| unusable(&fault))
}

fn index_opened(index: &Index, opened: &OpenedRecord) -> Result<(), IndexError> {
    let template = enrol::new_template(&opened.record);
    index.load(template, &opened.template).map(|_slot| ())
}
