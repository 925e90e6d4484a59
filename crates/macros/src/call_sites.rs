//! `#[call_sites]`: operations that know by which name and from which line of the program they were called.

use quote::quote;
use syn::{Error, ImplItem, ItemImpl, Visibility, parse_quote};

/// Adds to each public function of a block, and to each of a trait's, that it notes its name and its caller's line.
pub(crate) fn expand(mut block: ItemImpl) -> proc_macro2::TokenStream {
    let of_trait = block.trait_.is_some();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        let public = of_trait || matches!(function.vis, Visibility::Public(_));
        if !public || function.sig.constness.is_some() {
            continue;
        }
        if let Some(asyncness) = &function.sig.asyncness {
            return Error::new_spanned(asyncness, "#[call_sites] cannot follow an async fn")
                .to_compile_error();
        }
        function.attrs.push(parse_quote!(#[track_caller]));
        let name = function.sig.ident.to_string();
        // Hygienic: the body cannot name it.
        let line = syn::Ident::new("line", proc_macro2::Span::mixed_site());
        function.block.stmts.insert(
            0,
            parse_quote!(
                let #line = ::wgrad_array::site::enter(#name, ::core::panic::Location::caller());
            ),
        );
    }
    quote!(#block)
}
