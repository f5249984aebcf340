//! What a worker must launch, stop and report, as a pure machine
