/// Values that belong to an adapter's factors beyond `A` and `B`, by the factors' names and in the order in
/// which the adapter's [method](crate::MethodDefinition) declares them.
///
/// `T` is a parameter on a device, values on the host, a matrix, or whatever is computed for each factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors<T>(Vec<(&'static str, T)>);

impl<T> Default for Factors<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<(&'static str, T)> for Factors<T> {
    fn from_iter<I: IntoIterator<Item = (&'static str, T)>>(factors: I) -> Self {
        Self(factors.into_iter().collect())
    }
}

impl<T> Factors<T> {
    /// No factor beyond `A` and `B`, as in plain LoRA.
    pub fn none() -> Self {
        Self::default()
    }

    /// The value of the factor with this name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// Sets the value of a factor, and returns the one that it had.
    pub fn insert(&mut self, name: &'static str, value: T) -> Option<T> {
        let known = self.0.iter_mut().find(|(known, _)| *known == name);
        if let Some((_, old)) = known {
            return Some(std::mem::replace(old, value));
        }
        self.0.push((name, value));
        None
    }

    /// Takes a factor out.
    pub fn remove(&mut self, name: &str) -> Option<T> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Each factor's name and value, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, &T)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The same factors with a value made from each of these.
    pub fn map<U>(self, mut value: impl FnMut(&'static str, T) -> U) -> Factors<U> {
        let factors = self.0.into_iter();
        factors
            .map(|(name, old)| (name, value(name, old)))
            .collect()
    }

    /// [`Self::map`] of borrowed values.
    pub fn map_ref<U>(&self, mut value: impl FnMut(&'static str, &T) -> U) -> Factors<U> {
        self.iter()
            .map(|(name, old)| (name, value(name, old)))
            .collect()
    }
}
