//! Wayfarer: a mobile security gateway on poll-mode workers.

#![forbid(unsafe_code)]
