/*
 * What the engine's archive, which was built for glibc, wants of a C library beyond musl's pure functions: each a symbol of its own,
 * so that nothing of musl is pulled in that would make a system call.
 */
#include <stdarg.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include "machine.h"

/* errno, without a thread. */
static int the_errno;
int *__errno_location(void) { return &the_errno; }
int *___errno_location(void) { return &the_errno; }

/* Text as the engine's messages need it: %s %c %d %u %x %p, with flags, widths, precisions and sizes; no floating point. */
int vsnprintf(char *to, size_t size, const char *format, va_list list)
{
	size_t length = 0;
#define PUT(c) do { if (length + 1 < size) to[length] = (c); length++; } while (0)
	for (; *format; format++) {
		if (*format != '%') { PUT(*format); continue; }
		int left = 0, zero = 0, width = 0, precision = -1, longs = 0;
		for (format++; *format == '-' || *format == '0'; format++) *format == '-' ? (left = 1) : (zero = 1);
		if (*format == '*') { width = va_arg(list, int); format++; }
		else while (*format >= '0' && *format <= '9') width = width * 10 + *format++ - '0';
		if (*format == '.') {
			precision = 0;
			if (*++format == '*') { precision = va_arg(list, int); format++; }
			else while (*format >= '0' && *format <= '9') precision = precision * 10 + *format++ - '0';
		}
		for (; *format == 'l' || *format == 'z' || *format == 'h'; format++) longs += *format != 'h';
		char digits[24], *text = digits + sizeof digits;
		size_t count;
		int negative = 0;
		if (*format == 's') {
			text = va_arg(list, char *);
			if (!text) text = "(null)";
			for (count = 0; (precision < 0 || count < (size_t)precision) && text[count]; count++);
		} else if (*format == 'c') {
			*--text = (char)va_arg(list, int);
			count = 1;
		} else if (*format == 'd' || *format == 'i' || *format == 'u' || *format == 'x' || *format == 'X' || *format == 'p') {
			unsigned long value;
			if (*format == 'd' || *format == 'i') {
				long number = longs ? va_arg(list, long) : va_arg(list, int);
				negative = number < 0;
				value = negative ? -(unsigned long)number : (unsigned long)number;
			} else value = longs || *format == 'p' ? va_arg(list, unsigned long) : va_arg(list, unsigned);
			unsigned base = *format == 'x' || *format == 'X' || *format == 'p' ? 16 : 10;
			do *--text = (*format == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[value % base];
			while (value /= base);
			if (negative && !zero) *--text = '-';
			count = (size_t)(digits + sizeof digits - text);
		} else {
			if (*format != '%') PUT('%');
			if (!*format) break;
			PUT(*format);
			continue;
		}
		int pad = width - (int)count - (negative && zero);
		if (negative && zero) PUT('-');
		if (!left) for (; pad > 0; pad--) PUT(zero ? '0' : ' ');
		for (size_t i = 0; i < count; i++) PUT(text[i]);
		for (; pad > 0; pad--) PUT(' ');
	}
	if (size) to[length < size ? length : size - 1] = 0;
	return (int)length;
}
int snprintf(char *to, size_t size, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	int length = vsnprintf(to, size, format, list);
	va_end(list);
	return length;
}

/* Printing: all of it goes to the console, whatever the file. */
FILE *const stdout = NULL;
FILE *const stderr = NULL;

static int print_list(const char *format, va_list list)
{
	char text[512];
	int length = vsnprintf(text, sizeof text, format, list);
	print(text);
	return length;
}
int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	int length = print_list(format, list);
	va_end(list);
	return length;
}
int __printf_chk(int flag, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	int length = print_list(format, list);
	va_end(list);
	return length;
}
int fputc(int c, FILE *file) { arch_putc((char)c); return c; }
int putchar(int c) { arch_putc((char)c); return c; }
size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file)
{
	for (size_t i = 0; i < size * count; i++) arch_putc(((const char *)bytes)[i]);
	return count;
}

/* The checked forms of glibc's headers. */
int __vsnprintf_chk(char *to, size_t size, int flag, size_t room, const char *format, va_list list)
{
	return vsnprintf(to, size, format, list);
}
int __snprintf_chk(char *to, size_t size, int flag, size_t room, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	int length = vsnprintf(to, size, format, list);
	va_end(list);
	return length;
}
void *__memcpy_chk(void *to, const void *from, size_t size, size_t room) { return memcpy(to, from, size); }
void *__memmove_chk(void *to, const void *from, size_t size, size_t room) { return memmove(to, from, size); }
void *__memset_chk(void *to, int byte, size_t size, size_t room) { return memset(to, byte, size); }
char *__strcpy_chk(char *to, const char *from, size_t room) { return strcpy(to, from); }
char *__strcat_chk(char *to, const char *from, size_t room) { return strcat(to, from); }

uintptr_t __stack_chk_guard = 0x5bd1e9955bd1e995;
_Noreturn void __stack_chk_fail(void) { die("the stack is corrupt"); }
_Noreturn void __assert_fail(const char *what, const char *file, unsigned line, const char *function)
{
	print(what);
	die(" does not hold");
}
_Noreturn void abort(void) { die("the engine called abort()"); }

/* Time: UTC, by the clock of the board. */
static double epoch_ms(void)
{
	static double base = -1;
	if (base < 0) base = arch_epoch() * 1000 - arch_now();
	return base + arch_now();
}
int gettimeofday(struct timeval *value, void *zone)
{
	double now = epoch_ms();
	value->tv_sec = (time_t)(now / 1000);
	value->tv_usec = (suseconds_t)((now - (double)value->tv_sec * 1000) * 1000);
	return 0;
}
int clock_gettime(clockid_t clock, struct timespec *value)
{
	double now = clock == CLOCK_REALTIME ? epoch_ms() : arch_now();
	value->tv_sec = (time_t)(now / 1000);
	value->tv_nsec = (long)((now - (double)value->tv_sec * 1000) * 1000000);
	return 0;
}
struct tm *localtime_r(const time_t *time, struct tm *result)
{
	memset(result, 0, sizeof *result);
	return result;
}

/* Threads: there is one, and `Atomics.wait` may not block. */
int pthread_mutex_lock(void *mutex) { return 0; }
int pthread_mutex_unlock(void *mutex) { return 0; }
int pthread_cond_init(void *condition, const void *attributes) { return 0; }
int pthread_cond_destroy(void *condition) { return 0; }
int pthread_cond_signal(void *condition) { return 0; }
int pthread_cond_wait(void *condition, void *mutex) { die("the only thread waits for another one"); }
int pthread_cond_timedwait(void *condition, void *mutex, const void *until) { die("the only thread waits for another one"); }

/* libgcc asks whether the processor has large atomics: it need not. */
unsigned long __getauxval(unsigned long type) { return 0; }
