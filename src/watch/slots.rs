//! A vector whose places are reused: small numbers as names for things that come and go.

/// Things by number. The number of a thing that was removed is given out again.
#[derive(Debug)]
pub(super) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.places[slot as usize] = Some(thing);
            return slot;
        }
        let slot = u32::try_from(self.places.len()).expect("memory ends long before 2^32 things");
        self.places.push(Some(thing));
        slot
    }

    /// The number that the next thing will have.
    pub(super) fn next(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.places.len() as u32)
    }

    /// Panics if there is nothing: whoever has a number also answers for its thing.
    pub(super) fn remove(&mut self, slot: u32) -> T {
        let thing = self.places[slot as usize].take().expect("a slot is emptied once");
        self.free.push(slot);
        thing
    }

    pub(super) fn get(&self, slot: u32) -> &T {
        self.places[slot as usize].as_ref().expect("the slot is in use")
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut T {
        self.places[slot as usize].as_mut().expect("the slot is in use")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}
