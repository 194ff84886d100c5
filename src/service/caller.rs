//! Who calls: a certificate's holder with a role, or anybody on a plaintext loopback port.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tonic::Request;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::access::Access;
use super::fault::Fault;
use crate::consent::Sha256;
use crate::telemetry::{self, Rejected};
use crate::types::{CallerName, ControllerId, GateId};

/// What a caller is allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A gate controller: verifies at its own gates.
    Gate,
    /// An enrolment tool: enrols and revokes.
    Enroller,
    /// An operator: applies policy, revokes, reads status.
    Operator,
    /// Reads, and changes nothing.
    Auditor,
}

/// One caller as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerRule {
    /// What logs call it.
    pub name: CallerName,
    /// A DNS or URI name in the certificate's subject alternative names, or "sha256:" and the
    /// 64 hexadecimal digits of the certificate's digest.
    pub certificate: String,
    /// What it may be.
    pub role: Role,
    /// For gates: the gates that it may use. Empty: none.
    #[serde(default)]
    pub gates: BTreeSet<GateId>,
    /// The controllers that it may act for. Empty: all.
    #[serde(default)]
    pub controllers: BTreeSet<ControllerId>,
    /// Whether it may send embeddings instead of pictures.
    #[serde(default)]
    pub embeddings: bool,
}

/// A caller's rule is not usable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallerRuleFault {
    /// Two rules would fit one certificate.
    #[error("callers {0} and {1} name the same certificate")]
    SameCertificate(CallerName, CallerName),
    /// Neither a name nor a digest.
    #[error(
        "caller {0}: certificate must be a DNS or URI name, or sha256: and 64 hexadecimal digits"
    )]
    Certificate(CallerName),
    /// A gate without gates can do nothing.
    #[error("caller {0}: role gate needs a list of gates")]
    WithoutGates(CallerName),
}

/// The known callers.
#[derive(Debug, Clone)]
pub enum Callers {
    /// Plaintext on loopback: whoever reaches the port may do everything.
    Loopback,
    /// By certificate.
    Certificates(Vec<CallerRule>),
}

impl Callers {
    /// Checks the rules against each other.
    ///
    /// # Errors
    /// See [`CallerRuleFault`].
    pub fn by_certificate(rules: Vec<CallerRule>) -> Result<Self, CallerRuleFault> {
        for (i, rule) in rules.iter().enumerate() {
            if !is_certificate_name(&rule.certificate) {
                return Err(CallerRuleFault::Certificate(rule.name.clone()));
            }
            if rule.role == Role::Gate && rule.gates.is_empty() {
                return Err(CallerRuleFault::WithoutGates(rule.name.clone()));
            }
            if let Some(twin) = rules[..i].iter().find(|r| r.certificate == rule.certificate) {
                return Err(CallerRuleFault::SameCertificate(twin.name.clone(), rule.name.clone()));
            }
        }
        Ok(Self::Certificates(rules))
    }

    /// The request's caller, if it may do what `access` asks.
    pub(super) fn admit<T>(&self, access: Access, request: &Request<T>) -> Result<Caller, Fault> {
        let roles = match access {
            Access::Public => return Ok(Caller(Identity::Anybody)),
            Access::Roles(roles) => roles,
        };
        let known = match self {
            Self::Loopback => return Ok(Caller(Identity::Loopback)),
            Self::Certificates(known) => known,
        };
        let rule = presented(request, known)?;
        if roles.contains(&rule.role) {
            Ok(Caller(Identity::Known(rule.clone())))
        } else {
            Err(Fault::forbidden("this caller's role may not call this"))
        }
    }
}

fn is_certificate_name(text: &str) -> bool {
    match text.strip_prefix("sha256:") {
        Some(digest) => digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !text.trim().is_empty(),
    }
}

/// The rule of the certificate that the peer presented and rustls verified.
fn presented<'r, T>(
    request: &Request<T>,
    rules: &'r [CallerRule],
) -> Result<&'r CallerRule, Fault> {
    let chain = request.peer_certs();
    let leaf = chain.as_deref().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| Fault::unauthenticated("a client certificate is needed"))?;
    let names = names_of(leaf.as_ref());
    rules
        .iter()
        .find(|rule| names.contains(&rule.certificate.to_ascii_lowercase()))
        .ok_or_else(|| Fault::unauthenticated("this certificate belongs to no configured caller"))
}

/// All names under which a rule may know a certificate, in lower case. Subject common names are
/// not among them (RFC 9525).
fn names_of(der: &[u8]) -> Vec<String> {
    let mut names = vec![format!("sha256:{}", String::from(Sha256::of(der)))];
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return names };
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(text) | GeneralName::URI(text) = name {
                names.push(text.to_ascii_lowercase());
            }
        }
    }
    names
}

/// An admitted caller: proof that the request may go on.
#[derive(Debug, Clone)]
pub(super) struct Caller(Identity);

#[derive(Debug, Clone)]
enum Identity {
    Anybody,
    Loopback,
    Known(CallerRule),
}

impl Caller {
    /// Whether it may use this gate.
    pub(super) fn may_use(&self, gate: &GateId) -> Result<(), Fault> {
        self.may(|rule| rule.gates.contains(gate), "this caller may not use this gate")
    }

    /// Whether it may act for this controller.
    pub(super) fn may_act_for(&self, controller: &str) -> Result<(), Fault> {
        let named = |rule: &CallerRule| {
            rule.controllers.is_empty() || rule.controllers.iter().any(|c| c.as_str() == controller)
        };
        self.may(named, "this caller may not act for this controller")
    }

    /// Whether it may send embeddings.
    pub(super) fn may_send_embeddings(&self) -> Result<(), Fault> {
        self.may(|rule| rule.embeddings, "this caller may not send embeddings; send a picture")
    }

    fn may(&self, rule: impl Fn(&CallerRule) -> bool, refusal: &'static str) -> Result<(), Fault> {
        let allowed = match &self.0 {
            Identity::Anybody => false,
            Identity::Loopback => true,
            Identity::Known(known) => rule(known),
        };
        if allowed {
            return Ok(());
        }
        telemetry::rejected(Rejected::Forbidden);
        Err(Fault::forbidden(refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, certificate: &str, role: Role) -> CallerRule {
        CallerRule {
            name: CallerName::parse(name).unwrap(),
            certificate: certificate.to_owned(),
            role,
            gates: BTreeSet::new(),
            controllers: BTreeSet::new(),
            embeddings: false,
        }
    }

    #[test]
    fn rules_that_contradict_each_other_are_refused() {
        let a = rule("a", "tool.example", Role::Enroller);
        let b = rule("b", "tool.example", Role::Operator);
        assert!(matches!(
            Callers::by_certificate(vec![a.clone(), b]),
            Err(CallerRuleFault::SameCertificate(..))
        ));
        assert!(Callers::by_certificate(vec![a]).is_ok());
        let gate = rule("g", "gate.example", Role::Gate);
        assert!(matches!(
            Callers::by_certificate(vec![gate]),
            Err(CallerRuleFault::WithoutGates(_))
        ));
        let digest = rule("d", "sha256:12", Role::Auditor);
        assert!(matches!(
            Callers::by_certificate(vec![digest]),
            Err(CallerRuleFault::Certificate(_))
        ));
    }
}
