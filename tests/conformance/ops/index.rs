//! Reading and writing at places that are values.

use super::{Table, one};

pub const OPS: Table = &[
    ("gather", |c| one(c.tensor("input")?.gather(c.int("dim")?, &c.tensor("index")?))),
    ("scatter_add", |c| {
        one(c.tensor("input")?.scatter_add(c.int("dim")?, &c.tensor("index")?, &c.tensor("src")?))
    }),
    ("index_select", |c| one(c.tensor("input")?.index_select(c.int("dim")?, &c.tensor("index")?))),
    ("one_hot", |c| {
        let classes = c.int_or("num_classes", -1)?;
        one(c.tensor("input")?.one_hot((classes != -1).then_some(classes.max(0) as usize)))
    }),
];
