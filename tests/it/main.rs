//! All integration tests, as one binary.

mod cli; // the program's commands: what they print, and how they exit
mod harness; // services in this process and as child processes, clients, requests, faces
mod kills; // kill -9 during enrolment and revocation, a hundred times each
mod people; // a thousand real people, found again; strangers, sent away
mod story; // the demo's story, told twice: in process, and as the program
mod streams; // VerifyStream, EnrollStream, vanishing clients, shared batches
