//! A list that usually has one element, and then needs no memory of its own.

use std::ops::Deref;

/// One value, or any other number of them.
#[derive(Clone, Debug)]
pub enum OneOrMany<T> {
    /// One element.
    One(T),
    /// None, or several.
    Several(Box<[T]>),
}

impl<T> FromIterator<T> for OneOrMany<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut all: Vec<T> = all.into_iter().collect();
        match all.pop() {
            Some(only) if all.is_empty() => Self::One(only),
            last => Self::Several(all.into_iter().chain(last).collect()),
        }
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::One(only) => std::slice::from_ref(only),
            Self::Several(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OneOrMany;

    #[test]
    fn any_number_in_order() {
        for n in 0..5 {
            let list: OneOrMany<u32> = (0..n).collect();
            assert_eq!(list.to_vec(), (0..n).collect::<Vec<_>>());
            assert_eq!(matches!(list, OneOrMany::One(_)), n == 1);
        }
    }
}
