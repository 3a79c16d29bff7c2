/*
 * Starts the engine, gives a script its few native functions as the global `machine`, and pumps jobs. All that a script may expect
 * beyond that is TypeScript.
 */
#include <string.h>
#include "machine.h"

extern char heap_start[];
static JSRuntime *runtime;
static JSValue machine;
/* Once a script has begun, its functions may be called. */
static int running;

void print(const char *text)
{
	for (; *text; text++) {
		if (*text == '\n') arch_putc('\r');
		arch_putc(*text);
	}
}

void print_hex(uint64_t value)
{
	char text[19] = "0x";
	for (int i = 0; i < 16; i++) text[2 + i] = "0123456789abcdef"[(value >> (60 - 4 * i)) & 15];
	text[18] = 0;
	print(text);
}

_Noreturn void die(const char *why)
{
	print("bare guest: ");
	print(why);
	print("\n");
	arch_exit(70);
}

static JSValue js_write(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	size_t length;
	const char *text = JS_ToCStringLen(ctx, &length, values[0]);
	if (!text) return JS_EXCEPTION;
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\n') arch_putc('\r');
		arch_putc(text[i]);
	}
	JS_FreeCString(ctx, text);
	return JS_UNDEFINED;
}

static JSValue js_read(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	return JS_NewInt32(ctx, arch_getc());
}

static JSValue js_now(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	return JS_NewFloat64(ctx, arch_now());
}

static JSValue js_wait(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	double ms;
	if (JS_ToFloat64(ctx, &ms, values[0])) return JS_EXCEPTION;
	if (ms > 0) arch_wait(ms);
	return JS_UNDEFINED;
}

static JSValue js_exit(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	int status;
	if (JS_ToInt32(ctx, &status, values[0])) return JS_EXCEPTION;
	arch_exit(status & 255);
}

static JSValue js_map(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	int64_t address, size;
	if (JS_ToInt64(ctx, &address, values[0]) || JS_ToInt64(ctx, &size, values[1])) return JS_EXCEPTION;
	if (address < 0 || size < 0 || !arch_mapped((uint64_t)address, (uint64_t)size))
		return JS_ThrowRangeError(ctx, "the processor cannot access %lld bytes at %lld", (long long)size, (long long)address);
	return JS_NewArrayBuffer(ctx, (uint8_t *)(uintptr_t)address, (size_t)size, NULL, NULL, 0);
}

static JSValue js_heap(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	JSMemoryUsage usage;
	JS_ComputeMemoryUsage(runtime, &usage);
	JSValue result = JS_NewObject(ctx);
	JS_SetPropertyStr(ctx, result, "used", JS_NewFloat64(ctx, (double)usage.malloc_size));
	JS_SetPropertyStr(ctx, result, "peak", JS_NewFloat64(ctx, (double)heap_peak()));
	return result;
}

static JSValue js_collect(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	JS_RunGC(runtime);
	return JS_UNDEFINED;
}

static void print_error(JSContext *ctx, JSValueConst error)
{
	const char *text = JS_ToCString(ctx, error);
	print(text ? text : "an error without a text");
	print("\n");
	if (text) JS_FreeCString(ctx, text);
	if (!JS_IsObject(error)) return;
	JSValue stack = JS_GetPropertyStr(ctx, error, "stack");
	if (JS_IsString(stack) && (text = JS_ToCString(ctx, stack))) {
		print(text);
		JS_FreeCString(ctx, text);
	}
	JS_FreeValue(ctx, stack);
}

static _Noreturn void fail(JSContext *ctx, JSValue error)
{
	print("Uncaught ");
	print_error(ctx, error);
	arch_exit(1);
}

/* Tells the script of promises whose rejection nobody handles, and of those that were handled after all. */
static void on_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason, JS_BOOL handled, void *opaque)
{
	if (!running) return;
	JSValue listener = JS_GetPropertyStr(ctx, machine, "rejected");
	if (JS_IsFunction(ctx, listener)) {
		JSValueConst values[] = { promise, reason, JS_NewBool(ctx, handled) };
		JS_FreeValue(ctx, JS_Call(ctx, listener, JS_UNDEFINED, 3, values));
	}
	JS_FreeValue(ctx, listener);
}

static void run_jobs(void)
{
	JSContext *ctx;
	int did;
	while ((did = JS_ExecutePendingJob(runtime, &ctx)) > 0);
	if (did < 0) fail(ctx, JS_GetException(ctx));
}

static void run(JSContext *ctx, const uint8_t *script, size_t length)
{
	running = 1;
	JSValue module = JS_ReadObject(ctx, script, length, JS_READ_OBJ_BYTECODE);
	if (JS_IsException(module) || JS_ResolveModule(ctx, module)) fail(ctx, JS_GetException(ctx));
	JSValue done = JS_EvalFunction(ctx, module);
	if (JS_IsException(done)) fail(ctx, JS_GetException(ctx));
	for (;;) {
		run_jobs();
		if (JS_PromiseState(ctx, done) == JS_PROMISE_REJECTED) fail(ctx, JS_PromiseResult(ctx, done));
		/* One turn of the script's loop: whether there will be another. */
		JSValue turn = JS_GetPropertyStr(ctx, machine, "turn");
		JSValue more = JS_IsFunction(ctx, turn) ? JS_Call(ctx, turn, machine, 0, NULL) : JS_FALSE;
		JS_FreeValue(ctx, turn);
		if (JS_IsException(more)) fail(ctx, JS_GetException(ctx));
		int again = JS_ToBool(ctx, more);
		JS_FreeValue(ctx, more);
		if (!again && !JS_IsJobPending(runtime)) break;
	}
	if (JS_PromiseState(ctx, done) == JS_PROMISE_PENDING) {
		print("The script waits, but no timer, interrupt or message is pending that could continue it.\n");
		arch_exit(13);
	}
	arch_exit(0);
}

static const JSCFunctionListEntry functions[] = {
	JS_CFUNC_DEF("write", 1, js_write),
	JS_CFUNC_DEF("read", 0, js_read),
	JS_CFUNC_DEF("now", 0, js_now),
	JS_CFUNC_DEF("wait", 1, js_wait),
	JS_CFUNC_DEF("exit", 1, js_exit),
	JS_CFUNC_DEF("map", 2, js_map),
	JS_CFUNC_DEF("heap", 0, js_heap),
	JS_CFUNC_DEF("collect", 0, js_collect),
};

void start(uintptr_t boot_info)
{
	arch_boot_info = boot_info;
	arch_init();
	heap_init(heap_start, (void *)(arch_ram + SCRIPT_OFFSET));

	const uint8_t *script = (const uint8_t *)(arch_ram + SCRIPT_OFFSET);
	if (memcmp(script, "VIRTIOJS", 8)) die("there is no script");
	uint64_t length;
	memcpy(&length, script + 8, 8);

	runtime = JS_NewRuntime();
	if (!runtime) die("there is no memory for the engine");
	JS_SetMaxStackSize(runtime, 768 * 1024);
	JSContext *ctx = JS_NewContext(runtime);
	machine = JS_NewObject(ctx);
	JS_SetPropertyFunctionList(ctx, machine, functions, sizeof functions / sizeof functions[0]);
	JS_SetPropertyStr(ctx, machine, "arch", JS_NewString(ctx, arch_name));
	JS_SetPropertyStr(ctx, machine, "bootInfo", JS_NewFloat64(ctx, (double)arch_boot_info));
	JS_SetPropertyStr(ctx, machine, "dmaAddress", JS_NewFloat64(ctx, (double)(arch_ram + DMA_OFFSET)));
	JS_SetPropertyStr(ctx, machine, "dmaSize", JS_NewFloat64(ctx, (double)DMA_SIZE));
	arch_functions(ctx, machine);
	testing_functions(ctx, machine);
	JSValue global = JS_GetGlobalObject(ctx);
	JS_SetPropertyStr(ctx, global, "machine", JS_DupValue(ctx, machine));
	JS_FreeValue(ctx, global);
	JS_SetHostPromiseRejectionTracker(runtime, on_rejection, NULL);
	run(ctx, script + 16, length);
}
