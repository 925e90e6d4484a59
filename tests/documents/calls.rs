//! Which methods an operator of PyTorch is, read from the conformance run's table of calls; and what the run of finite
//! differences leaves out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Expr, Item, Lit, Token};

use crate::library::Library;

/// The methods of each operator, the one that is most like it first.
pub type Calls = BTreeMap<String, Vec<String>>;

/// Arguments of calls that are made in other dtypes or from other forms of an operator, not the operator itself.
const PLUMBING: &[&str] = &["tensor", "to_dtype", "detach", "deep_clone", "full", "size", "shape"];

/// Reads the tables of all files of a folder.
pub fn read(folder: &Path, library: &Library) -> Result<Calls> {
    let mut calls = Calls::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let file = syn::parse_file(&std::fs::read_to_string(&path)?)?;
        let mut functions = BTreeMap::new();
        for item in &file.items {
            if let Item::Fn(function) = item {
                functions.insert(function.sig.ident.to_string(), function.block.to_token_stream());
            }
        }
        let mut add = |op: String, body: TokenStream| {
            let methods = methods(&op, body, &functions, library);
            anyhow::ensure!(
                !methods.is_empty(),
                "{}: the call of {op} has no method of Tensor",
                path.display()
            );
            calls.insert(op, methods);
            Ok(())
        };
        for item in &file.items {
            let Item::Const(table) = item else { continue };
            for (op, body) in rows(&table.expr) {
                add(op, body)?;
            }
        }
    }
    Ok(calls)
}

/// The rows of a table: operator and call. A macro's words are both.
fn rows(table: &Expr) -> Vec<(String, TokenStream)> {
    let table = if let Expr::Reference(reference) = table { &*reference.expr } else { table };
    match table {
        Expr::Array(rows) => rows.elems.iter().filter_map(row).collect(),
        Expr::Macro(names) => {
            let names = names.mac.tokens.clone().into_iter();
            let names = names.filter(|token| matches!(token, TokenTree::Ident(_)));
            names.map(|name| (name.to_string(), format!(".{name}()").parse().unwrap_or_default())).collect()
        }
        _ => Vec::new(),
    }
}

fn row(row: &Expr) -> Option<(String, TokenStream)> {
    let Expr::Tuple(row) = row else { return None };
    let mut parts = row.elems.iter();
    Some((text(parts.next()?)?, parts.next()?.to_token_stream()))
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

/// The methods that a call makes, itself or in functions of its file. Where some are called like the operator, only those.
fn methods(
    op: &str,
    body: TokenStream,
    functions: &BTreeMap<String, TokenStream>,
    library: &Library,
) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    collect(body, functions, &mut seen, &mut found);
    found.retain(|name| library.computes(name) && !PLUMBING.contains(&name.as_str()));
    let last = op.rsplit('.').next().unwrap_or(op);
    let alike: Vec<String> = found.iter().filter(|name| name.contains(last)).cloned().collect();
    let mut found = if alike.is_empty() { found } else { alike };
    // The plain form of a method whose more general form is called.
    if !op.contains('.') && library.computes(op) && !found.iter().any(|name| name == op) {
        found.push(op.to_owned());
    }
    found.sort_by_key(|name| (name != last, !name.starts_with(last)));
    found
}

fn collect(
    body: TokenStream,
    functions: &BTreeMap<String, TokenStream>,
    seen: &mut BTreeSet<String>,
    found: &mut Vec<String>,
) {
    let mut before = [' ', ' '];
    for token in body {
        match token {
            TokenTree::Group(group) => {
                collect(group.stream(), functions, seen, found);
                before = [' ', ' '];
            }
            TokenTree::Ident(name) => {
                let (name, of_something) = (name.to_string(), before[1] == '.' || before == [':', ':']);
                if of_something && !found.contains(&name) {
                    found.push(name);
                } else if let Some(body) = functions.get(&name).filter(|_| !of_something && seen.insert(name))
                {
                    collect(body.clone(), functions, seen, found);
                }
                before = [' ', ' '];
            }
            TokenTree::Punct(punct) => before = [before[1], punct.as_char()],
            TokenTree::Literal(_) => before = [' ', ' '],
        }
    }
}

/// Operator, argument and reason of what `gradcheck` leaves out.
pub fn unchecked(folder: &Path) -> Result<Vec<[String; 3]>> {
    let file = syn::parse_file(&std::fs::read_to_string(folder.join("main.rs"))?)?;
    let table = file.items.iter().find_map(|item| match item {
        Item::Const(table) if table.ident == "UNCHECKED" => Some(&*table.expr),
        _ => None,
    });
    let Some(Expr::Reference(table)) = table else {
        anyhow::bail!("no table UNCHECKED in {}", folder.display())
    };
    let Expr::Array(rows) = &*table.expr else { anyhow::bail!("the table UNCHECKED is no list") };
    let row = |row: &Expr| {
        let Expr::Tuple(row) = row else { return None };
        let parts: &Punctuated<Expr, Token![,]> = &row.elems;
        parts.iter().map(text).collect::<Option<Vec<String>>>()?.try_into().ok()
    };
    rows.elems.iter().map(row).collect::<Option<_>>().context("a row of UNCHECKED is not three texts")
}
