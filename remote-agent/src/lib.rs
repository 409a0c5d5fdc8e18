//! vo-agent
