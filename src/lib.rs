//! Assent: a face-matching microservice that only works with consent.
//!
//! `ARCHITECTURE.md` draws the modules and their ranks; a module imports only lower ranks.

pub mod audit;
pub mod cli;
pub mod config;
pub mod consent;
pub mod crypto;
pub mod engine;
mod failpoint;
pub mod index;
pub mod memory;
pub mod pipeline;
pub mod server;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod types;
