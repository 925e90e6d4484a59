// The 32 bits of 2/pi that begin at bit 32 * (i - 2) behind the point; 0 for those before the point.

fn d_two_over_pi(i: u32) -> u32 {
    switch i {
        case 2u: { return 0xa2f9836eu; }
        case 3u: { return 0x4e441529u; }
        case 4u: { return 0xfc2757d1u; }
        case 5u: { return 0xf534ddc0u; }
        case 6u: { return 0xdb629599u; }
        case 7u: { return 0x3c439041u; }
        case 8u: { return 0xfe5163abu; }
        case 9u: { return 0xdebbc561u; }
        case 10u: { return 0xb7246e3au; }
        case 11u: { return 0x424dd2e0u; }
        case 12u: { return 0x06492eeau; }
        case 13u: { return 0x09d1921cu; }
        case 14u: { return 0xfe1deb1cu; }
        case 15u: { return 0xb129a73eu; }
        case 16u: { return 0xe88235f5u; }
        case 17u: { return 0x2ebb4484u; }
        case 18u: { return 0xe99c7026u; }
        case 19u: { return 0xb45f7e41u; }
        case 20u: { return 0x3991d639u; }
        case 21u: { return 0x835339f4u; }
        case 22u: { return 0x9c845f8bu; }
        case 23u: { return 0xbdf9283bu; }
        case 24u: { return 0x1ff897ffu; }
        case 25u: { return 0xde05980fu; }
        case 26u: { return 0xef2f118bu; }
        case 27u: { return 0x5a0a6d1fu; }
        case 28u: { return 0x6d367ecfu; }
        case 29u: { return 0x27cb09b7u; }
        case 30u: { return 0x4f463f66u; }
        case 31u: { return 0x9e5fea2du; }
        case 32u: { return 0x7527bac7u; }
        case 33u: { return 0xebe5f17bu; }
        case 34u: { return 0x3d0739f7u; }
        case 35u: { return 0x8a5292eau; }
        case 36u: { return 0x6bfb5fb1u; }
        case 37u: { return 0x1f8d5d08u; }
        case 38u: { return 0x56033046u; }
        default: { return 0u; }
    }
}

fn d_two_over_pi4(i: vec4<u32>) -> vec4<u32> {
    return vec4<u32>(d_two_over_pi(i.x), d_two_over_pi(i.y), d_two_over_pi(i.z), d_two_over_pi(i.w));
}
