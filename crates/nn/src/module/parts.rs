//! What fields may be made of: tensors, containers of modules, and values without tensors.

use std::collections::{BTreeMap, HashMap};

use wgrad_autograd::{
    ConvOptions, DType, Device, Interpolation, PadMode, Padding, PoolOptions, Reduction, Scale, Tensor,
};

use super::{Module, Walk};

impl Module for Tensor {
    fn visit(&self, walk: &mut Walk<'_>) {
        walk.tensor(&mut self.clone());
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        walk.tensor(self);
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        if let Some(module) = self {
            module.visit(walk);
        }
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        if let Some(module) = self {
            module.visit_mut(walk);
        }
    }

    fn type_name(&self) -> &'static str {
        self.as_ref().map_or("", Module::type_name)
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        (**self).visit(walk);
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        (**self).visit_mut(walk);
    }

    fn type_name(&self) -> &'static str {
        (**self).type_name()
    }
}

/// Elements by their number.
macro_rules! lists {
    ($([$($generics:tt)*] $list:ty),*) => {$(
        impl<M: Module, $($generics)*> Module for $list {
            fn visit(&self, walk: &mut Walk<'_>) {
                for (i, module) in self.iter().enumerate() {
                    walk.field(&i.to_string(), module);
                }
            }

            fn visit_mut(&mut self, walk: &mut Walk<'_>) {
                for (i, module) in self.iter_mut().enumerate() {
                    walk.field_mut(&i.to_string(), module);
                }
            }
        }
    )*};
}
lists!([] Vec<M>, [const N: usize] [M; N]);

/// Elements by their name; `torch.nn.ModuleDict`.
impl<M: Module> Module for BTreeMap<String, M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        for (name, module) in self {
            walk.field(name, module);
        }
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        for (name, module) in self {
            walk.field_mut(name, module);
        }
    }
}

/// Elements by their name, in the order of names.
impl<M: Module> Module for HashMap<String, M> {
    fn visit(&self, walk: &mut Walk<'_>) {
        let ordered: BTreeMap<_, _> = self.iter().collect();
        for (name, module) in ordered {
            walk.field(name, module);
        }
    }

    fn visit_mut(&mut self, walk: &mut Walk<'_>) {
        let ordered: BTreeMap<_, _> = self.iter_mut().collect();
        for (name, module) in ordered {
            walk.field_mut(name, module);
        }
    }
}

macro_rules! tuples {
    ($(($($name:ident $at:tt),+)),*) => {$(
        impl<$($name: Module),+> Module for ($($name,)+) {
            fn visit(&self, walk: &mut Walk<'_>) {
                $(walk.field(stringify!($at), &self.$at);)+
            }

            fn visit_mut(&mut self, walk: &mut Walk<'_>) {
                $(walk.field_mut(stringify!($at), &mut self.$at);)+
            }
        }
    )*};
}
tuples!(
    (A 0),
    (A 0, B 1),
    (A 0, B 1, C 2),
    (A 0, B 1, C 2, D 3),
    (A 0, B 1, C 2, D 3, E 4),
    (A 0, B 1, C 2, D 3, E 4, F 5),
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6),
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
);

/// Values without tensors that a walk has to see.
macro_rules! without_tensors {
    ($($ty:ty),* $(,)?) => {$(
        impl Module for $ty {
            fn visit(&self, _: &mut Walk<'_>) {}

            fn visit_mut(&mut self, _: &mut Walk<'_>) {}
        }
    )*};
}
without_tensors!(
    (),
    bool,
    char,
    u8,
    u16,
    u32,
    u64,
    usize,
    i8,
    i16,
    i32,
    i64,
    isize,
    f32,
    f64,
    String,
    &'static str,
    DType,
    Device,
    Reduction,
    Padding,
    PadMode,
    Interpolation,
    Scale,
    ConvOptions,
    PoolOptions,
);
