//! vo-batch
