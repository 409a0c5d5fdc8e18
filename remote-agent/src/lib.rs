//! What runs at a site: the event agent on its gateway ([`event`]), the starters on its nodes ([`starter`]). One small binary, uploaded
//! once. Must not know the master's store.

pub mod launch;
