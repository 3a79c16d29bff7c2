/*
 * What tests compute over each byte that they compare with the host: SHA-256, CRC-32, the pattern of the harness. In the engine's own
 * code it would take most of a run. The host computes the same with code of its own, so that a mistake here fails tests.
 */
#include "machine.h"

static const uint32_t k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
	0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
	0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
	0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
	0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
	0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t right(uint32_t value, int bits) { return value >> bits | value << (32 - bits); }

static void sha256_blocks(uint32_t state[8], const uint8_t *bytes, size_t blocks)
{
	for (; blocks; blocks--, bytes += 64) {
		uint32_t w[64], s[8];
		for (int i = 0; i < 16; i++)
			w[i] = (uint32_t)bytes[4 * i] << 24 | (uint32_t)bytes[4 * i + 1] << 16 | (uint32_t)bytes[4 * i + 2] << 8 | bytes[4 * i + 3];
		for (int i = 16; i < 64; i++)
			w[i] = w[i - 16] + w[i - 7] + (right(w[i - 15], 7) ^ right(w[i - 15], 18) ^ w[i - 15] >> 3) +
			       (right(w[i - 2], 17) ^ right(w[i - 2], 19) ^ w[i - 2] >> 10);
		for (int i = 0; i < 8; i++) s[i] = state[i];
		for (int i = 0; i < 64; i++) {
			uint32_t one = s[7] + (right(s[4], 6) ^ right(s[4], 11) ^ right(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
			uint32_t two = (right(s[0], 2) ^ right(s[0], 13) ^ right(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
			for (int j = 7; j > 0; j--) s[j] = s[j - 1];
			s[4] += one;
			s[0] = one + two;
		}
		for (int i = 0; i < 8; i++) state[i] += s[i];
	}
}

/* Bytes of a buffer: (buffer, offset, length) from `values` on. */
static uint8_t *range(JSContext *ctx, JSValueConst *values, size_t *length)
{
	size_t size;
	int64_t offset, wanted;
	uint8_t *bytes = JS_GetArrayBuffer(ctx, &size, values[0]);
	if (!bytes || JS_ToInt64(ctx, &offset, values[1]) || JS_ToInt64(ctx, &wanted, values[2])) return NULL;
	if (offset < 0 || wanted < 0 || (uint64_t)offset > size || (uint64_t)wanted > size - (uint64_t)offset) {
		JS_ThrowRangeError(ctx, "the bytes are not inside the buffer");
		return NULL;
	}
	*length = (size_t)wanted;
	return bytes + offset;
}

/* (buffer, offset, length, state of 32 bytes): mixes whole blocks of 64 bytes into the state */
static JSValue js_sha256(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	size_t length, state_size;
	uint8_t *bytes = range(ctx, values, &length);
	uint8_t *state = bytes ? JS_GetArrayBuffer(ctx, &state_size, values[3]) : NULL;
	if (!state) return JS_EXCEPTION;
	if (state_size != 32) return JS_ThrowRangeError(ctx, "the state has 32 bytes");
	sha256_blocks((uint32_t *)state, bytes, length / 64);
	return JS_UNDEFINED;
}

/* (buffer, offset, length, CRC before) */
static JSValue js_crc32(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	static uint32_t table[256];
	size_t length;
	uint32_t value;
	uint8_t *bytes = range(ctx, values, &length);
	if (!bytes || JS_ToUint32(ctx, &value, values[3])) return JS_EXCEPTION;
	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t entry = i;
			for (int bit = 0; bit < 8; bit++) entry = entry & 1 ? 0xedb88320 ^ entry >> 1 : entry >> 1;
			table[i] = entry;
		}
	value = ~value;
	for (size_t i = 0; i < length; i++) value = table[(value ^ bytes[i]) & 0xff] ^ value >> 8;
	return JS_NewUint32(ctx, ~value);
}

/* (buffer, offset, length, seed, position): the harness's pattern */
static JSValue js_pattern(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	size_t length;
	int64_t seed, position;
	uint8_t *bytes = range(ctx, values, &length);
	if (!bytes || JS_ToInt64(ctx, &seed, values[3]) || JS_ToInt64(ctx, &position, values[4])) return JS_EXCEPTION;
	for (size_t at = 0; at + 4 <= length; at += 4) {
		uint32_t word = ((uint32_t)((uint64_t)position + at) >> 2) * 0x9e3779b1u ^ ((uint32_t)seed + 1) * 0x85ebca6bu;
		word = (word ^ word >> 15) * 0x2c1b3c6du;
		word ^= word >> 13;
		for (int i = 0; i < 4; i++) bytes[at + (size_t)i] = (uint8_t)(word >> 8 * i);
	}
	return JS_UNDEFINED;
}

static const JSCFunctionListEntry functions[] = {
	JS_CFUNC_DEF("sha256Blocks", 4, js_sha256),
	JS_CFUNC_DEF("crc32", 4, js_crc32),
	JS_CFUNC_DEF("pattern", 5, js_pattern),
};

void testing_functions(JSContext *ctx, JSValueConst machine)
{
	JS_SetPropertyFunctionList(ctx, machine, functions, sizeof functions / sizeof functions[0]);
}
