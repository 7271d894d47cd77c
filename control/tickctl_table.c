/*
 * tickctl_table.c - rows as text: tab-separated, a drawn table, JSON or CSV.
 *
 * Owns: nothing.
 * Core: the process of tickctl.
 * Spec: the forms of rabbitmqctl's formatters table, pretty_table, json and csv (RFC 4180).
 */
#include <stdlib.h>
#include <string.h>

#include "control/tickctl.h"

struct text {
	char *s;
	size_t len, cap;
};

static void add(struct text *t, const char *s, size_t len)
{
	if (t->cap - t->len <= len) {
		t->cap = 2 * (t->len + len) + 32;
		t->s = realloc(t->s, t->cap);
		if (t->s == NULL)
			abort();
	}
	memcpy(t->s + t->len, s, len);
	t->len += len;
	t->s[t->len] = '\0';
}

static void add_str(struct text *t, const char *s)
{
	add(t, s, strlen(s));
}

/* A name with a tab or a line end in it must not make a cell or a row. */
static void add_clean(struct text *t, const char *s, size_t len)
{
	char hex[8];

	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) {
			snprintf(hex, sizeof hex, "\\x%02x", (unsigned char)s[i]);
			add_str(t, hex);
		} else {
			add(t, &s[i], 1);
		}
}

static void add_value(struct text *t, const json_t *v, bool outer)
{
	const char *name;
	json_t *inner;
	char number[40];
	size_t i;
	bool first = true;

	switch (v != NULL ? json_typeof(v) : JSON_NULL) {
	case JSON_STRING:
		add_clean(t, json_string_value(v), json_string_length(v));
		break;
	case JSON_INTEGER:
		snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		add_str(t, number);
		break;
	case JSON_REAL:
		snprintf(number, sizeof number, "%.6g", json_real_value(v));
		add_str(t, number);
		break;
	case JSON_TRUE:
		add_str(t, "true");
		break;
	case JSON_FALSE:
		add_str(t, "false");
		break;
	case JSON_NULL:
		break;
	case JSON_ARRAY:
		add_str(t, "[");
		json_array_foreach(v, i, inner)
		{
			add_str(t, i != 0 ? ", " : "");
			add_value(t, inner, false);
		}
		add_str(t, "]");
		break;
	case JSON_OBJECT:
		add_str(t, outer ? "[" : "{");
		json_object_foreach((json_t *)(uintptr_t)v, name, inner)
		{
			add_str(t, first ? "" : ", ");
			first = false;
			add_clean(t, name, strlen(name));
			add_str(t, "=");
			add_value(t, inner, false);
		}
		add_str(t, outer ? "]" : "}");
		break;
	}
}

char *tickctl_cell(const json_t *value)
{
	struct text t = {NULL, 0, 0};

	add(&t, "", 0);
	add_value(&t, value, true);
	return t.s;
}

/* ---- the forms ---- */

static void print_table(FILE *out, const json_t *rows, const char *const *columns, size_t n, bool headers)
{
	json_t *row;
	size_t i;

	if (headers && json_array_size(rows) != 0)
		for (size_t k = 0; k < n; k++)
			fprintf(out, "%s%s", columns[k], k + 1 < n ? "\t" : "\n");
	json_array_foreach(rows, i, row) for (size_t k = 0; k < n; k++)
	{
		char *cell = tickctl_cell(json_object_get(row, columns[k]));

		fprintf(out, "%s%s", cell, k + 1 < n ? "\t" : "\n");
		free(cell);
	}
}

/* Columns on a terminal: code points, which is right for all but wide and combining ones. */
static size_t width_of(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void rule(FILE *out, const size_t *widths, size_t n, const char *left, const char *middle, const char *right)
{
	fputs(left, out);
	for (size_t k = 0; k < n; k++) {
		for (size_t i = 0; i < widths[k] + 2; i++)
			fputs("─", out);
		fputs(k + 1 < n ? middle : right, out);
	}
	fputs("\n", out);
}

static void pretty_cell(FILE *out, const char *text, size_t width)
{
	fprintf(out, "│ %s%*s", text, (int)(width - width_of(text) + 1), " ");
}

static void print_pretty(FILE *out, const json_t *rows, const char *const *columns, size_t n, bool headers)
{
	size_t *widths = calloc(n + 1, sizeof *widths), i;
	json_t *row;

	if (widths == NULL)
		abort();
	for (size_t k = 0; k < n; k++)
		widths[k] = headers ? width_of(columns[k]) : 0;
	json_array_foreach(rows, i, row) for (size_t k = 0; k < n; k++)
	{
		char *cell = tickctl_cell(json_object_get(row, columns[k]));

		widths[k] = width_of(cell) > widths[k] ? width_of(cell) : widths[k];
		free(cell);
	}
	rule(out, widths, n, "┌", "┬", "┐");
	for (size_t k = 0; headers && k < n; k++)
		pretty_cell(out, columns[k], widths[k]);
	if (headers) {
		fputs("│\n", out);
		rule(out, widths, n, "├", "┼", "┤");
	}
	json_array_foreach(rows, i, row)
	{
		for (size_t k = 0; k < n; k++) {
			char *cell = tickctl_cell(json_object_get(row, columns[k]));

			pretty_cell(out, cell, widths[k]);
			free(cell);
		}
		fputs("│\n", out);
	}
	rule(out, widths, n, "└", "┴", "┘");
	free(widths);
}

static void csv_cell(FILE *out, const json_t *v)
{
	char *cell = tickctl_cell(v);

	if (json_is_integer(v) || json_is_real(v)) {
		fputs(cell, out);
	} else {
		fputc('"', out);
		for (const char *s = cell; *s != '\0'; s++)
			fputs(*s == '"' ? "\"\"" : (char[]){*s, '\0'}, out);
		fputc('"', out);
	}
	free(cell);
}

static void print_csv(FILE *out, const json_t *rows, const char *const *columns, size_t n, bool headers)
{
	json_t *row;
	size_t i;

	for (size_t k = 0; headers && k < n; k++)
		fprintf(out, "\"%s\"%s", columns[k], k + 1 < n ? "," : "\n");
	json_array_foreach(rows, i, row) for (size_t k = 0; k < n; k++)
	{
		csv_cell(out, json_object_get(row, columns[k]));
		fputc(k + 1 < n ? ',' : '\n', out);
	}
}

static void print_json(FILE *out, const json_t *rows, const char *const *columns, size_t n)
{
	json_t *row;
	size_t i;

	fputs("[", out);
	json_array_foreach(rows, i, row)
	{
		json_t *chosen = json_object();

		for (size_t k = 0; k < n; k++) {
			json_t *v = json_object_get(row, columns[k]);

			json_object_set_new(chosen, columns[k], v != NULL ? json_incref(v) : json_null());
		}
		fputs(i != 0 ? "\n," : "\n", out);
		json_dumpf(chosen, out, JSON_COMPACT | JSON_PRESERVE_ORDER);
		json_decref(chosen);
	}
	fputs("\n]\n", out);
}

void tickctl_print_rows(FILE *out, const json_t *rows, const char *const *columns, size_t columns_count, enum tickctl_format format,
			bool headers)
{
	if (format == TICKCTL_JSON)
		print_json(out, rows, columns, columns_count);
	else if (format == TICKCTL_CSV)
		print_csv(out, rows, columns, columns_count, headers);
	else if (format == TICKCTL_PRETTY)
		print_pretty(out, rows, columns, columns_count, headers);
	else
		print_table(out, rows, columns, columns_count, headers);
}
