//! What a policy has to know of the deployment that it is applied in.

use serde::{Deserialize, Serialize};

use crate::types::ModelContract;

/// Where templates and probes travel (C8, M8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentMode {
    /// The service runs on the gate itself; nothing of a face leaves it.
    OnDevice,
    /// Within the site's own network.
    #[default]
    SiteLan,
    /// Over the Internet.
    Internet,
}

impl DeploymentMode {
    /// The word of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDevice => "on_device",
            Self::SiteLan => "site_lan",
            Self::Internet => "internet",
        }
    }
}

/// The deployment.
#[derive(Debug, Clone, Default)]
pub struct Deployment {
    /// Where templates and probes travel.
    pub mode: DeploymentMode,
    /// The model in use; `None` where no model is loaded, as in tools that only check a policy.
    pub model: Option<ModelContract>,
}
