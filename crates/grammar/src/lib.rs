//! Which tokens may come next, by a grammar.
