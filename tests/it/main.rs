//! All integration tests, as one binary.

mod docs; // the documentation's examples are accepted, and what it names exists
mod harness; // services in this process and as child processes, clients, requests, faces
mod readme; // the README's snippets are in it word for word, and work
mod story; // the demo's story, told twice: in process, and as the program
