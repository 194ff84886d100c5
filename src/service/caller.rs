//! Who calls: a certificate's holder with a role, or anybody on a plaintext loopback port.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tonic::codegen::http::Extensions;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::access::Access;
use super::fault::Fault;
use crate::consent::Sha256;
use crate::telemetry::{self, Rejected};
use crate::types::{CallerName, ControllerId, GateId};

/// How a rule begins that knows a certificate by its digest.
const DIGEST: &str = "sha256:";

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

impl Role {
    /// As the configuration writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Enroller => "enroller",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }
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
    /// Role gate: the gates that it may use.
    #[serde(default)]
    pub gates: BTreeSet<GateId>,
    /// Role enroller: the controllers that it may act for. Empty: all.
    #[serde(default)]
    pub controllers: BTreeSet<ControllerId>,
    /// Roles gate and enroller: whether it may send embeddings instead of pictures.
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
    /// A bound that would bind nothing.
    #[error("caller {caller}: {field} means nothing for role {}; take it out", role.name())]
    Meaningless {
        /// The caller.
        caller: CallerName,
        /// The field.
        field: &'static str,
        /// Its role.
        role: Role,
    },
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
    /// Checks the rules, alone and against each other. Names and digests are folded to lower case.
    ///
    /// # Errors
    /// See [`CallerRuleFault`].
    pub fn by_certificate(mut rules: Vec<CallerRule>) -> Result<Self, CallerRuleFault> {
        for rule in &mut rules {
            rule.certificate.make_ascii_lowercase();
        }
        for (i, rule) in rules.iter().enumerate() {
            if !is_certificate_name(&rule.certificate) {
                return Err(CallerRuleFault::Certificate(rule.name.clone()));
            }
            if rule.role == Role::Gate && rule.gates.is_empty() {
                return Err(CallerRuleFault::WithoutGates(rule.name.clone()));
            }
            if let Some(field) = meaningless(rule) {
                let (caller, role) = (rule.name.clone(), rule.role);
                return Err(CallerRuleFault::Meaningless { caller, field, role });
            }
            if let Some(twin) = rules[..i].iter().find(|r| r.certificate == rule.certificate) {
                return Err(CallerRuleFault::SameCertificate(twin.name.clone(), rule.name.clone()));
            }
        }
        Ok(Self::Certificates(rules))
    }

    /// The caller of the request with this head, if it may do what `access` asks.
    pub(super) fn admit(&self, access: Access, head: &Extensions) -> Result<Caller, Fault> {
        let roles = match access {
            Access::Public => return Ok(Caller(Identity::Anybody)),
            Access::Roles(roles) => roles,
        };
        let known = match self {
            Self::Loopback => return Ok(Caller(Identity::Loopback)),
            Self::Certificates(known) => known,
        };
        let rule = presented(head, known)?;
        if roles.contains(&rule.role) {
            Ok(Caller(Identity::Known(rule.clone())))
        } else {
            Err(Fault::forbidden("this caller's role may not call this"))
        }
    }
}

/// The field that a rule has and its role does not use.
fn meaningless(rule: &CallerRule) -> Option<&'static str> {
    let (gate, enroller) = (rule.role == Role::Gate, rule.role == Role::Enroller);
    [
        ("gates", !rule.gates.is_empty() && !gate),
        ("controllers", !rule.controllers.is_empty() && !enroller),
        ("embeddings", rule.embeddings && !gate && !enroller),
    ]
    .into_iter()
    .find_map(|(field, idle)| idle.then_some(field))
}

fn is_certificate_name(text: &str) -> bool {
    match text.strip_prefix(DIGEST) {
        Some(digest) => digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !text.trim().is_empty(),
    }
}

/// The rule of the certificate that the peer presented and rustls verified.
fn presented<'r>(head: &Extensions, rules: &'r [CallerRule]) -> Result<&'r CallerRule, Fault> {
    let chain = head.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
    let leaf = chain.as_deref().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| Fault::unauthenticated("a client certificate is needed"))?;
    only_fit(&Known::by(leaf.as_ref()), rules)
}

/// The one rule that fits. A certificate that fits two has no role that we could be sure of.
fn only_fit<'r>(known: &Known, rules: &'r [CallerRule]) -> Result<&'r CallerRule, Fault> {
    let mut fitting = rules.iter().filter(|rule| known.fits(&rule.certificate));
    match (fitting.next(), fitting.next()) {
        (Some(rule), None) => Ok(rule),
        (None, _) => {
            Err(Fault::unauthenticated("this certificate belongs to no configured caller"))
        }
        (Some(_), Some(_)) => {
            Err(Fault::unauthenticated("this certificate belongs to several configured callers"))
        }
    }
}

/// By what a rule may know a certificate. Subject common names do not count (RFC 9525).
struct Known {
    /// Lower-case hexadecimal.
    digest: String,
    /// DNS and URI names, in lower case.
    names: Vec<String>,
}

impl Known {
    fn by(der: &[u8]) -> Self {
        let mut this = Self { digest: String::from(Sha256::of(der)), names: Vec::new() };
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return this };
        if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
            for name in &alternative.value.general_names {
                if let GeneralName::DNSName(text) | GeneralName::URI(text) = name {
                    this.names.push(text.to_ascii_lowercase());
                }
            }
        }
        this
    }

    /// A digest is met by the digest only: a certificate may carry any URI, `sha256:...` too.
    fn fits(&self, rule: &str) -> bool {
        match rule.strip_prefix(DIGEST) {
            Some(digest) => digest == self.digest,
            None => self.names.iter().any(|name| name == rule),
        }
    }
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
    /// What the audit trail calls it.
    pub(super) fn name(&self) -> &str {
        match &self.0 {
            Identity::Anybody => "anybody",
            Identity::Loopback => "loopback",
            Identity::Known(rule) => rule.name.as_str(),
        }
    }

    /// Whether it may use this gate.
    pub(super) fn may_use(&self, gate: &GateId) -> Result<(), Fault> {
        Self::allowed_to(self.uses(gate), "this caller may not use this gate")
    }

    /// The same as a question, of which nothing is counted.
    pub(super) fn uses(&self, gate: &GateId) -> bool {
        self.is(|rule| rule.gates.contains(gate))
    }

    /// Whether it may act for this controller.
    pub(super) fn may_act_for(&self, controller: &str) -> Result<(), Fault> {
        let named = |rule: &CallerRule| {
            rule.controllers.is_empty() || rule.controllers.iter().any(|c| c.as_str() == controller)
        };
        Self::allowed_to(self.is(named), "this caller may not act for this controller")
    }

    /// Whether it may send embeddings.
    pub(super) fn may_send_embeddings(&self) -> Result<(), Fault> {
        let allowed = self.is(|rule| rule.embeddings);
        Self::allowed_to(allowed, "this caller may not send embeddings; send a picture")
    }

    fn is(&self, allowed: impl Fn(&CallerRule) -> bool) -> bool {
        match &self.0 {
            Identity::Anybody => false,
            Identity::Loopback => true,
            Identity::Known(rule) => allowed(rule),
        }
    }

    fn allowed_to(allowed: bool, refusal: &'static str) -> Result<(), Fault> {
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

    #[test]
    fn case_hides_no_twin() {
        let a = rule("a", "Tool.example", Role::Enroller);
        let b = rule("b", "tool.EXAMPLE", Role::Operator);
        let twins = Callers::by_certificate(vec![a, b]);
        assert!(matches!(twins, Err(CallerRuleFault::SameCertificate(..))));
    }

    type Bind<'a> = &'a dyn Fn(&mut CallerRule);

    #[test]
    fn a_bound_that_binds_nothing_is_refused() {
        let gates = |rule: &mut CallerRule| rule.gates.extend(GateId::parse("g-1"));
        let controllers = |rule: &mut CallerRule| rule.controllers.extend(ControllerId::parse("c"));
        let embeddings = |rule: &mut CallerRule| rule.embeddings = true;
        let bounds: [(&str, Bind<'_>, &[Role]); 3] = [
            ("gates", &gates, &[Role::Enroller, Role::Operator, Role::Auditor]),
            ("controllers", &controllers, &[Role::Gate, Role::Operator, Role::Auditor]),
            ("embeddings", &embeddings, &[Role::Operator, Role::Auditor]),
        ];
        for (named, bind, roles) in bounds {
            for role in [Role::Gate, Role::Enroller, Role::Operator, Role::Auditor] {
                let mut bound = rule("a", "a.example", role);
                if role == Role::Gate {
                    gates(&mut bound);
                }
                bind(&mut bound);
                let field = match Callers::by_certificate(vec![bound]) {
                    Err(CallerRuleFault::Meaningless { field, .. }) => Some(field),
                    _ => None,
                };
                assert_eq!(field, roles.contains(&role).then_some(named), "{named} {role:?}");
            }
        }
    }

    #[test]
    fn a_digest_is_met_by_the_digest_only_and_one_rule_has_to_fit_alone() {
        let digest = "ab".repeat(32);
        let pinned = rule("pinned", &format!("sha256:{digest}"), Role::Operator);
        let named = rule("named", "tool.example", Role::Auditor);
        let rules = [pinned, named];
        let known = |digest: &str, names: &[&str]| Known {
            digest: digest.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        };
        let who = |known: Known| only_fit(&known, &rules).map(|rule| rule.name.to_string()).ok();
        assert_eq!(who(known(&digest, &[])).as_deref(), Some("pinned"));
        assert_eq!(who(known("cd", &["tool.example"])).as_deref(), Some("named"));
        let forged = format!("sha256:{digest}");
        assert_eq!(who(known("cd", &[&forged])), None, "a name that looks like a digest");
        assert_eq!(who(known(&digest, &["tool.example"])), None, "fits two rules");
        assert_eq!(who(known("cd", &["x.example"])), None);
    }
}
