//! Assent: a face-matching microservice that only works with consent.
//!
//! `ARCHITECTURE.md` draws the modules and their ranks; a module imports only lower ranks.

pub mod consent;
pub mod crypto;
pub mod index;
pub mod pipeline;
pub mod store;
pub mod telemetry;
pub mod types;
