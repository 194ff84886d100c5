//! All integration tests, as one binary.

mod harness; // services in this process and as child processes, clients, requests, faces
mod story; // the demo's story, told twice: in process, and as the program
