//! All integration tests, as one binary.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking, their helpers too")]
#![allow(clippy::assigning_clones, reason = "tables of spoilt fields read better so")]
#![allow(clippy::print_stdout, reason = "counts that the issue asks for are shown")]

mod access; // who may call what: every role, every RPC, every kind of bad credential
mod audit; // what the service says it did, checked without it; old copies of its disk
mod backup; // backups fetched and restored by the program; nobody revoked comes back
mod calibrate; // thresholds from labelled photos; margins; galleries that outgrow them
mod cli; // the program's commands: what they print, and how they exit
mod community; // the story of one deployment from its first day to its last, and its page
mod compliance; // the page of rules, written from the tests' names; rules that no other file shows
mod decommission; // the end of a deployment: everything gone, certified, never served again
mod docs; // the documentation's examples are accepted, and what it names exists
mod evidence; // what the service did about a person or in an hour, collected and checked offline
mod expiry; // ten thousand consents that end at the same instant
mod filing; // who has to file with the authority: from the first person to the cancelled filing
mod forensics; // what a face leaves in memory and files of the process: nothing
mod full_disk; // a real file system that fills up: enrolment refused, revocation goes on
mod harness; // services in this process and as child processes, clients, requests, faces
mod histories; // random histories against a plain model: no match without a live consent
mod hostile; // picture bombs, floods, late and abandoned requests
mod kills; // kill -9 during enrolment, revocation and the start, at random times and at failpoints
mod layers; // the table of ranks and what must be absent, read from the source
mod observability; // metrics, logs, health, reflection, drain, failed starts
mod people; // a thousand real people, found again; strangers, sent away
mod presence; // alternatives that are down, liveness, faces that wait after failed attempts
mod readme; // the README's snippets are in it word for word, and work
mod refusals; // every bad input of REQUIREMENTS: a clear refusal, nothing stored
mod root_cells; // the root key under a passphrase, and in a PKCS#11 token
mod snapshots; // starts from a sealed snapshot, good, old and bad
mod story; // the demo's story, told twice: in process, and as the program
mod streams; // VerifyStream, EnrollStream, vanishing clients, shared batches
mod time; // clocks that jump and go back, records that nobody uses
