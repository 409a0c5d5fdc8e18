//! vo-lang
