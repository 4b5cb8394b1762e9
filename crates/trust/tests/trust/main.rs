//! The crate from outside: vectors of other hands, the judge in a small world of servers, and every
//! parser under bytes that mean no good.

#[cfg(test)]
mod anchors;
#[cfg(test)]
mod authority;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod changes;
mod claims;
#[cfg(test)]
mod corpora;
#[cfg(test)]
mod enrolment;
#[cfg(test)]
mod entries;
#[cfg(test)]
mod merkle;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod parsers;
#[cfg(test)]
mod pen;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod psk;
#[cfg(test)]
mod signatures;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod witness;
#[cfg(test)]
mod world;
