//! Interned kernel forms: the part of a kernel route that it shares with thousands of others. A route record notes the
//! form it should have and the form it has in four bytes each, and comparing them is comparing two numbers.

use std::num::NonZeroU32;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::model::{FormId, KernelRoute};

/// All forms in use.
#[derive(Debug, Default)]
pub struct Forms {
    forms: Vec<Option<(Arc<KernelRoute>, u32)>>,
    free: Vec<FormId>,
    index: FxHashMap<Arc<KernelRoute>, FormId>,
}

impl Forms {
    /// The form of this content, with one more user.
    pub fn hold(&mut self, route: KernelRoute) -> FormId {
        if let Some(&id) = self.index.get(&route) {
            self.hold_again(id);
            return id;
        }
        let route = Arc::new(route);
        let entry = Some((Arc::clone(&route), 1));
        let id = if let Some(id) = self.free.pop() {
            self.forms[index(id)] = entry;
            id
        } else {
            self.forms.push(entry);
            match NonZeroU32::new(self.forms.len() as u32) {
                Some(id) => FormId(id),
                None => unreachable!("a vector that was pushed to is not empty"),
            }
        };
        self.index.insert(route, id);
        id
    }

    /// One more user.
    pub fn hold_again(&mut self, id: FormId) {
        if let Some((_, users)) = &mut self.forms[index(id)] {
            *users += 1;
        }
    }

    /// One user less; `true` when it was the last and the form is forgotten.
    pub fn release(&mut self, id: FormId) -> bool {
        let place = &mut self.forms[index(id)];
        let Some((route, users)) = place else {
            return false;
        };
        *users -= 1;
        if *users > 0 {
            return false;
        }
        self.index.remove(route);
        *place = None;
        self.free.push(id);
        true
    }

    /// A form.
    pub fn get(&self, id: FormId) -> &Arc<KernelRoute> {
        match &self.forms[index(id)] {
            Some((route, _)) => route,
            None => unreachable!("a form in use is in its place"),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (FormId, &Arc<KernelRoute>)> {
        self.forms.iter().enumerate().filter_map(|(i, entry)| {
            let id = FormId(NonZeroU32::new(i as u32 + 1)?);
            Some((id, &entry.as_ref()?.0))
        })
    }
}

const fn index(id: FormId) -> usize {
    id.0.get() as usize - 1
}
