pub fn section(_: &crate::tally::Options, _: &mut crate::tally::Tally) {}
