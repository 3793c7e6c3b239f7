//! Members by channel, each counted: a name used by several is one member until the last of them is gone.

use std::collections::HashMap;

/// How often each name is on each channel.
#[derive(Default, Debug)]
pub struct Names(HashMap<Box<str>, HashMap<Box<str>, u32>>);

impl Names {
    /// Counts one more or one less with this name. Returns whether the member joined or left by that.
    pub fn change(&mut self, channel: &str, member: &str, entered: bool) -> bool {
        if entered {
            if !self.0.contains_key(channel) {
                self.0.insert(channel.into(), HashMap::new());
            }
            let Some(members) = self.0.get_mut(channel) else { return false };
            if let Some(count) = members.get_mut(member) {
                *count += 1;
                return false;
            }
            return members.insert(member.into(), 1).is_none();
        }
        let Some(members) = self.0.get_mut(channel) else { return false };
        match members.get_mut(member) {
            None => return false,
            Some(count @ 2..) => {
                *count -= 1;
                return false;
            }
            Some(_) => _ = members.remove(member),
        }
        if members.is_empty() {
            self.0.remove(channel);
        }
        true
    }

    /// Returns every channel and member.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(channel, members)| members.keys().map(move |member| (&**channel, &**member)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_comes_and_the_last_goes() {
        let mut names = Names::default();
        assert!(!names.change("room", "ann", false), "the channel is empty");
        assert!(names.change("room", "ann", true));
        assert!(!names.change("room", "ann", true) && names.change("room", "bob", true));
        assert!(!names.change("room", "ann", false) && !names.change("room", "cat", false));
        assert_eq!(names.iter().count(), 2);
        assert!(names.change("room", "ann", false) && names.change("room", "bob", false));
        assert!(names.0.is_empty());
    }
}
