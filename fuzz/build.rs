//! Writes the table of hostile calls: every public method of `Tensor`, read from the library's sources, so
//! that no method can be forgotten. The arguments follow from the method's signature. A method with an
//! argument of an unknown type goes to a list of its own, which a test requires to be empty.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::{env, error, fs, io};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{FnArg, ImplItem, Item, Pat, ReturnType, Signature, Type, Visibility};

type BuildResult<T> = std::result::Result<T, Box<dyn error::Error>>;

/// The methods by name, and the macros that define further methods.
#[derive(Default)]
struct Methods {
    all: BTreeMap<String, Signature>,
    /// For each macro the signatures in it, each with the placeholder for the method's name.
    macros: BTreeMap<String, Vec<(String, Signature)>>,
    /// The rows of the tables: the macro, and the names at the start of the row.
    rows: Vec<(String, Vec<String>)>,
}

fn main() -> BuildResult<()> {
    let sources = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../crates/autograd/src");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-changed=build.rs");
    let mut methods = Methods::default();
    read_folder(&sources, &mut methods)?;
    for (table, names) in std::mem::take(&mut methods.rows) {
        let Some(signatures) = methods.macros.get(&table) else { continue };
        for (name, (_, signature)) in names.iter().zip(signatures) {
            methods.all.insert(name.clone(), signature.clone());
        }
    }
    let mut table = String::new();
    let (mut entries, mut unknown) = (String::new(), Vec::new());
    for (name, signature) in &methods.all {
        match call(name, signature) {
            Ok(body) => {
                writeln!(table, "fn call_{name}(g: &mut Arguments) -> CallOutcome {{\n{body}}}")?;
                writeln!(entries, "    (\"{name}\", call_{name}),")?;
            }
            Err(ty) => unknown.push(format!("{name}: {ty}")),
        }
    }
    writeln!(
        table,
        "/// Every method and its call.\npub const METHODS: &[(&str, HostileCall)] = &[\n{entries}];"
    )?;
    writeln!(table, "/// Methods with arguments of a type that nothing here makes.")?;
    writeln!(table, "pub const UNKNOWN: &[&str] = &{unknown:?};")?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("methods.rs"), table)?;
    Ok(())
}

fn read_folder(folder: &Path, methods: &mut Methods) -> BuildResult<()> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_folder(&path, methods)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            read_file(&syn::parse_file(&fs::read_to_string(&path)?)?, methods);
        }
    }
    Ok(())
}

fn read_file(file: &syn::File, methods: &mut Methods) {
    for item in &file.items {
        match item {
            Item::Impl(block) if block.trait_.is_none() && is_tensor(&block.self_ty) => {
                for item in &block.items {
                    if let ImplItem::Fn(method) = item
                        && matches!(method.vis, Visibility::Public(_))
                    {
                        methods.all.insert(method.sig.ident.to_string(), method.sig.clone());
                    }
                }
            }
            Item::Macro(item) if item.mac.path.is_ident("macro_rules") => {
                let mut found = Vec::new();
                find_methods(item.mac.tokens.clone(), &mut found);
                if let (Some(name), false) = (&item.ident, found.is_empty()) {
                    methods.macros.insert(name.to_string(), found);
                }
            }
            Item::Macro(item) => {
                if let Some(table) = item.mac.path.get_ident() {
                    find_rows(item.mac.tokens.clone(), &table.to_string(), methods);
                }
            }
            _ => {}
        }
    }
}

fn is_tensor(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.is_ident("Tensor"))
}

/// Finds signatures of the form `pub fn $name(...) -> ...` anywhere in a macro.
fn find_methods(tokens: TokenStream, found: &mut Vec<(String, Signature)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            find_methods(group.stream(), found);
        }
        if let [
            TokenTree::Ident(public),
            TokenTree::Ident(function),
            TokenTree::Punct(dollar),
            TokenTree::Ident(name),
            ..,
        ] = &tokens[at..]
            && *public == "pub"
            && *function == "fn"
            && dollar.as_char() == '$'
        {
            let until = tokens[at..].iter().position(is_body).unwrap_or(tokens.len() - at);
            let signature: TokenStream =
                tokens[at + 1..at + 2].iter().chain(&tokens[at + 3..at + until]).cloned().collect();
            if let Ok(signature) = syn::parse2(signature) {
                found.push((name.to_string(), signature));
            }
        }
    }
}

fn is_body(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
}

/// Finds the rows of a table: documentation, then a name, and perhaps the name of the method in place.
fn find_rows(tokens: TokenStream, table: &str, methods: &mut Methods) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for at in 0..tokens.len() {
        let after_doc = at > 0
            && matches!(&tokens[at - 1], TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket)
            && at > 1
            && matches!(&tokens[at - 2], TokenTree::Punct(hash) if hash.as_char() == '#');
        let (true, TokenTree::Ident(name)) = (after_doc, &tokens[at]) else { continue };
        let mut names = vec![name.to_string()];
        if let [TokenTree::Punct(_), TokenTree::Ident(other), ..] = &tokens[at + 1..]
            && *other == format!("{name}_")
        {
            names.push(other.to_string());
        }
        methods.rows.push((table.to_owned(), names));
    }
}

/// The text of a type without spaces.
fn text(ty: &impl ToTokens) -> String {
    ty.to_token_stream().to_string().split_whitespace().collect()
}

/// The body of the function that makes a call: it makes the arguments, announces the call, and makes it.
fn call(name: &str, signature: &Signature) -> Result<String, String> {
    let mut body = String::new();
    let mut values = Vec::new();
    let mut receiver = "Tensor::".to_owned();
    let element = signature.generics.params.iter().any(|p| text(p).starts_with("T:Element"));
    for (at, argument) in signature.inputs.iter().enumerate() {
        match argument {
            FnArg::Receiver(_) => {
                body += "    let x = g.receiver();\n";
                receiver = "x.".to_owned();
            }
            FnArg::Typed(typed) => {
                let label = match &*typed.pat {
                    Pat::Ident(ident) => ident.ident.to_string(),
                    _ => String::new(),
                };
                let (owned, passed) = owned_type(&text(&typed.ty))?;
                if let Some(made) = owned.strip_prefix('=') {
                    values.push(made.to_owned());
                    continue;
                }
                let _ = writeln!(body, "    let a{at}: {owned} = g.make(\"{label}\");");
                values.push(passed.replace('@', &format!("a{at}")));
            }
        }
    }
    let turbofish = if element && !values.iter().any(|v| v.contains("a0")) { "::<f32>" } else { "" };
    let _ = writeln!(body, "    g.call({receiver:?}, {name:?});");
    let result = format!("{receiver}{name}{turbofish}({})", values.join(", "));
    let output = match &signature.output {
        ReturnType::Type(_, ty) => text(ty),
        ReturnType::Default => "()".to_owned(),
    };
    let _ = match &output[..] {
        "Tensor" => writeln!(body, "    Ok(vec![{result}])"),
        "Option<Tensor>" => writeln!(body, "    Ok({result}.into_iter().collect())"),
        "Result<Tensor>"
        | "Result<(Tensor,Tensor)>"
        | "Result<(Tensor,Tensor,Tensor)>"
        | "Result<Vec<Tensor>>"
        | "Result<Unique>" => writeln!(body, "    Ok({result}?.tensors())"),
        other if other.starts_with("Result<") => writeln!(body, "    {result}.map(|_| Vec::new())"),
        _ => writeln!(body, "    let _ = {result};\n    Ok(Vec::new())"),
    };
    Ok(body)
}

/// The owned type of the value that is made for an argument, and the expression with which it is passed,
/// where `@` stands for the value. A type that begins with `=` is the expression itself.
fn owned_type(ty: &str) -> Result<(String, String), String> {
    let ty = ty.replace("&'a", "&").replace("super::", "");
    let known = |ty: &str| {
        matches!(
            ty,
            "isize"
                | "usize"
                | "i64"
                | "i32"
                | "u64"
                | "f64"
                | "bool"
                | "Tensor"
                | "Scalar"
                | "Value"
                | "Bound"
                | "IntArray"
                | "Target"
                | "Options"
                | "DType"
                | "Device"
                | "Index"
                | "PadMode"
                | "ConvOptions"
                | "PoolOptions"
                | "BatchNormOptions"
                | "CrossEntropyOptions"
                | "BackwardOptions"
                | "Reduction"
                | "Rounding"
                | "ScatterReduce"
                | "GridSampling"
                | "GridPadding"
                | "Interpolation"
                | "Scale"
                | "FftNorm"
                | "NormOrder"
                | "QrMode"
                | "Triangle"
                | "Option<isize>"
                | "Option<usize>"
                | "Option<f64>"
                | "Option<NormOrder>"
                | "Option<Tensor>"
                | "(isize,isize)"
                | "[isize;2]"
                | "[Option<usize>;2]"
                | "[Option<usize>;3]"
        )
    };
    let plain = |ty: &str, passed: &str| Ok((ty.to_owned(), passed.to_owned()));
    match &ty[..] {
        "&str" => return plain("String", "&@"),
        "&[&Tensor]" => return plain("Vec<Tensor>", "&@.iter().collect::<Vec<_>>()"),
        "Option<&Tensor>" | "implInto<Option<&Tensor>>" => return plain("Option<Tensor>", "@.as_ref()"),
        "&[T]" => return plain("Vec<f32>", "&@"),
        "implData" => return plain("Vec<f32>", "@"),
        "implIntoIterator<Item=&Tensor>" => return plain("Vec<Tensor>", "&@"),
        "implFn(&Tensor)->Result<Option<Tensor>>+Send+Sync+'static" => {
            return plain("=|g: &Tensor| Ok(Some(g.clone()))", "");
        }
        "implFn(&Tensor)->Result<()>+Send+Sync+'static" => return plain("=|_: &Tensor| Ok(())", ""),
        _ => {}
    }
    if let Some(inner) = ty.strip_prefix("implInto<").and_then(|ty| ty.strip_suffix('>')) {
        return if known(inner) { plain(inner, "@") } else { Err(ty.clone()) };
    }
    if let Some(inner) = ty.strip_prefix("&[").and_then(|ty| ty.strip_suffix(']')) {
        return if known(inner) { plain(&format!("Vec<{inner}>"), "&@") } else { Err(ty.clone()) };
    }
    if let Some(inner) = ty.strip_prefix('&') {
        return if known(inner) { plain(inner, "&@") } else { Err(ty.clone()) };
    }
    if known(&ty) { plain(&ty, "@") } else { Err(ty) }
}
