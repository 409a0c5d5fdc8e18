//! The programs as a person meets them, over a local site.
