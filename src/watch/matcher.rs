//! Who wants to know of a key: exact keys in a hash map, ranges in an interval tree.

use super::{
    interval::{End, Intervals},
    slots::Slots,
};
use crate::types::KeyRange;
use std::{collections::HashMap, sync::Arc};

/// The keys of a watcher. Own copies: a key that came with a request would hold on to the whole buffer that it came in.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    One(Arc<[u8]>),
    Span(Arc<[u8]>, End),
}

impl From<&KeyRange> for Keys {
    fn from(range: &KeyRange) -> Keys {
        match range {
            KeyRange::One(key) => Keys::One(key.as_ref().into()),
            KeyRange::Span { start, end } => Keys::Span(start.as_ref().into(), Some(end.as_ref().into())),
            KeyRange::From(start) => Keys::Span(start.as_ref().into(), None),
        }
    }
}

/// Where a member stands, for [`Matcher::remove`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    group: u32,
    position: u32,
}

/// Members, which are numbers of the caller, by the keys that they want.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    exact: HashMap<Arc<[u8]>, u32>,
    ranges: Intervals,
    groups: Slots<Group>,
}

/// All who want the same keys.
#[derive(Debug)]
struct Group {
    keys: Keys,
    members: Vec<u32>,
}

impl Matcher {
    pub(super) fn insert(&mut self, keys: &Keys, member: u32) -> Place {
        let known = match keys {
            Keys::One(key) => self.exact.get(key).copied(),
            Keys::Span(start, end) => self.ranges.find(start, end),
        };
        if let Some(group) = known {
            let members = &mut self.groups.get_mut(group).members;
            members.push(member);
            return Place { group, position: (members.len() - 1) as u32 };
        }
        // Most groups have one member.
        let members = Vec::from([member]);
        let group = self.groups.insert(Group { keys: keys.clone(), members });
        match keys {
            Keys::One(key) => drop(self.exact.insert(key.clone(), group)),
            Keys::Span(start, end) => self.ranges.insert(start.clone(), end.clone(), group),
        }
        Place { group, position: 0 }
    }

    /// Takes a member out: its keys, and the member that has moved to its place, if one has.
    pub(super) fn remove(&mut self, place: Place) -> (Keys, Option<u32>) {
        let group = self.groups.get_mut(place.group);
        group.members.swap_remove(place.position as usize);
        if !group.members.is_empty() {
            return (group.keys.clone(), group.members.get(place.position as usize).copied());
        }
        let keys = self.groups.remove(place.group).keys;
        match &keys {
            Keys::One(key) => drop(self.exact.remove(key)),
            Keys::Span(start, end) => self.ranges.remove(start, end),
        }
        (keys, None)
    }

    /// Calls `visit` with each member that wants `key`.
    pub(super) fn visit(&self, key: &[u8], visit: &mut impl FnMut(u32)) {
        let mut group = |group: u32| self.groups.get(group).members.iter().for_each(|member| visit(*member));
        if let Some(exact) = self.exact.get(key) {
            group(*exact);
        }
        self.ranges.visit(key, &mut group);
    }

    /// Whether anybody wants `key`.
    pub(super) fn wants(&self, key: &[u8]) -> bool {
        let mut wanted = self.exact.contains_key(key);
        if !wanted {
            self.ranges.visit(key, &mut |_| wanted = true);
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn keys(key: &'static str, end: &'static str) -> Keys {
        Keys::from(&KeyRange::from_wire(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes())))
    }

    fn who(matcher: &Matcher, key: &str) -> Vec<u32> {
        let mut found = Vec::new();
        matcher.visit(key.as_bytes(), &mut |member| found.push(member));
        assert_eq!(matcher.wants(key.as_bytes()), !found.is_empty());
        found.sort_unstable();
        found
    }

    #[test]
    fn exact_keys_and_ranges_are_found_together() {
        let mut matcher = Matcher::default();
        let places = [keys("b", ""), keys("a", "c"), keys("b", "\0"), keys("b", ""), keys("\0", "\0")];
        let places = places.each_ref().map({
            let mut next = 0;
            let matcher = &mut matcher;
            move |keys| {
                next += 1;
                matcher.insert(keys, next)
            }
        });
        assert_eq!(who(&matcher, "b"), [1, 2, 3, 4, 5]);
        assert_eq!(who(&matcher, "a"), [2, 5]);
        assert_eq!(who(&matcher, "zz"), [3, 5]);

        // The last of a group takes the place of the one that left.
        assert_eq!(matcher.remove(places[0]).1, Some(4));
        assert_eq!(who(&matcher, "b"), [2, 3, 4, 5]);
        assert_eq!(matcher.remove(places[0]).1, None);
        for place in [places[1], places[2], places[4]] {
            matcher.remove(place);
        }
        assert_eq!(who(&matcher, "b"), [0; 0]);
        assert_eq!((matcher.groups.len(), matcher.exact.len()), (0, 0));
    }
}
