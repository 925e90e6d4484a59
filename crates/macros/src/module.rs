//! `#[derive(Module)]`: walks over the fields of a struct.

use proc_macro2::TokenStream;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{Data, DeriveInput, Error, Field, Index, LitStr, Meta, Result, Token, parse_quote};

/// What a field's attributes say.
enum Role {
    /// A parameter, or something that holds some.
    Plain,
    /// Its tensors are buffers; not saved if transient.
    Buffer { transient: bool },
    /// Its values stand beside those of the struct's own fields.
    Flatten,
    /// No walk looks at it.
    Skip,
}

pub(crate) fn expand(input: DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        let message = "#[derive(Module)] is for structs; implement wgrad::nn::Module for enums and unions";
        return Err(Error::new_spanned(&input.ident, message));
    };
    let (mut walks, mut walks_mut) = (Vec::new(), Vec::new());
    for (i, field) in data.fields.iter().enumerate() {
        let (role, rename) = attributes(field)?;
        let member = match &field.ident {
            Some(ident) => quote!(#ident),
            None => {
                let index = Index::from(i);
                quote!(#index)
            }
        };
        let name = rename.unwrap_or_else(|| member.to_string().trim_start_matches("r#").to_owned());
        let (walk, walk_mut) = match role {
            Role::Skip => continue,
            Role::Flatten => (
                quote!(::wgrad::nn::Module::visit(&self.#member, walk);),
                quote!(::wgrad::nn::Module::visit_mut(&mut self.#member, walk);),
            ),
            Role::Plain => {
                (quote!(walk.field(#name, &self.#member);), quote!(walk.field_mut(#name, &mut self.#member);))
            }
            Role::Buffer { transient } => (
                quote!(walk.buffer(#name, #transient, &self.#member);),
                quote!(walk.buffer_mut(#name, #transient, &mut self.#member);),
            ),
        };
        walks.push(walk);
        walks_mut.push(walk_mut);
    }
    let walk = if walks.is_empty() { quote!(_) } else { quote!(walk) };
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::wgrad::nn::Module));
    }
    let (implementing, types, bounds) = generics.split_for_impl();
    let (ident, type_name) = (&input.ident, input.ident.to_string());
    Ok(quote! {
        impl #implementing ::wgrad::nn::Module for #ident #types #bounds {
            fn visit(&self, #walk: &mut ::wgrad::nn::Walk<'_>) {
                #(#walks)*
            }

            fn visit_mut(&mut self, #walk: &mut ::wgrad::nn::Walk<'_>) {
                #(#walks_mut)*
            }

            fn type_name(&self) -> &'static str {
                #type_name
            }
        }
    })
}

/// A field's role, and the name that it has in paths if that is not its own.
fn attributes(field: &Field) -> Result<(Role, Option<String>)> {
    let (mut role, mut rename) = (Role::Plain, None);
    for attribute in &field.attrs {
        if attribute.path().is_ident("buffer") {
            let transient = match &attribute.meta {
                Meta::Path(_) => false,
                Meta::List(list) if list.tokens.to_string() == "transient" => true,
                other => return Err(Error::new_spanned(other, "expected #[buffer] or #[buffer(transient)]")),
            };
            role = Role::Buffer { transient };
        } else if attribute.path().is_ident("module") {
            let wishes = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?;
            for wish in wishes {
                match &wish {
                    Meta::Path(path) if path.is_ident("skip") => role = Role::Skip,
                    Meta::Path(path) if path.is_ident("flatten") => role = Role::Flatten,
                    Meta::NameValue(pair) if pair.path.is_ident("rename") => {
                        let value = &pair.value;
                        let name: LitStr = syn::parse2(quote!(#value))?;
                        if name.value().is_empty() {
                            return Err(Error::new_spanned(name, "a name has at least one character"));
                        }
                        rename = Some(name.value());
                    }
                    other => {
                        let message = "expected skip, flatten or rename = \"name\"";
                        return Err(Error::new_spanned(other, message));
                    }
                }
            }
        }
    }
    Ok((role, rename))
}
