/* The plot: latency by percentile, nines on the horizontal axis, both axes logarithmic, one self-contained SVG.
 * Runs inside tickbench after the measuring is over.
 * Specification: SVG 1.1; no fonts, scripts or files from elsewhere. */
#include "tools/tickbench/report.h"

#include <math.h>
#include <string.h>

#define WIDTH       920
#define LEFT        84
#define RIGHT       24
#define TOP         64
#define PLOT_HEIGHT 400
#define LEGEND_LINE 20
#define SERIES_MAX  (TB_ENTRIES_MAX * 3 + 1)
#define POINTS      240

struct series {
	const struct tb_hist *hist;
	char label[640];
	int colour;
	const char *dash;
};

struct plot {
	FILE *out;
	struct series series[SERIES_MAX];
	int count;
	double nines;  /* width of the horizontal axis */
	double low_ns; /* lower and upper edge of the vertical axis, powers of ten */
	double high_ns;
};

static void add_series(struct plot *p, const struct tb_hist *h, int colour, const char *dash, const char *prefix, const char *label)
{
	struct series *s = &p->series[p->count];

	if (!h->count || p->count == SERIES_MAX)
		return;
	s->hist = h;
	s->colour = colour;
	s->dash = dash;
	snprintf(s->label, sizeof(s->label), "%s%s", prefix, label);
	p->count++;
}

static void collect(struct plot *p, const struct tb_report *rep)
{
	for (uint32_t i = 0; i < rep->entry_count; i++) {
		const struct tb_entry *e = rep->entries[i];
		char label[512], full[600];
		tb_entry_label(e, label, sizeof(label));
		snprintf(full, sizeof(full), "%s, %s", label, tb_type_name(e->load.type));
		add_series(p, &e->result.all, (int)i, "", "", full);
		if (e->load.subscribers > 1 && rep->entry_count <= 2) {
			add_series(p, &e->result.first, (int)i, "2 3", "first subscriber: ", full);
			add_series(p, &e->result.last, (int)i, "7 4", "last subscriber: ", full);
		}
	}
	if (rep->echo.done)
		add_series(p, &rep->echo.round_trip, 8, "1 0", "UDP echo floor: ", rep->options->echo.text);
}

static void scale(struct plot *p)
{
	double low = 1e12, high = 1;
	uint64_t most = 10;

	for (int i = 0; i < p->count; i++) {
		const struct tb_hist *h = p->series[i].hist;
		most = h->count > most ? h->count : most;
		low = fmin(low, (double)(h->min ? h->min : 1));
		high = fmax(high, (double)h->max);
	}
	/* Beyond log10(samples) nines there is nothing but the maximum. */
	p->nines = fmin(fmax(ceil(log10((double)most)), 2), 7);
	p->low_ns = pow(10, floor(log10(low)));
	p->high_ns = pow(10, ceil(log10(high)));
	if (p->high_ns <= p->low_ns)
		p->high_ns = p->low_ns * 10;
}

static double at_x(const struct plot *p, double nines)
{
	return LEFT + (WIDTH - LEFT - RIGHT) * nines / p->nines;
}

static double at_y(const struct plot *p, double ns)
{
	double part = log10(ns / p->low_ns) / log10(p->high_ns / p->low_ns);

	return TOP + PLOT_HEIGHT * (1 - fmin(fmax(part, 0), 1));
}

static void put_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '<' || *text == '>' || *text == '&' || *text == '"')
			fprintf(out, "&#%d;", *text);
		else
			fputc((unsigned char)*text < 0x80 ? *text : '?', out);
	}
}

/* Colours from one palette, lighter on dark ground; the media query lets the viewer's setting choose. */
static void put_style(FILE *out)
{
	static const char *const light[] = {"#0b62c4", "#c2410c", "#15803d", "#9333ea", "#b45309", "#0e7490", "#be185d", "#4d7c0f"};
	static const char *const dark[] = {"#6cb0ff", "#ff9a62", "#5fd38a", "#c99bff", "#f2b84b", "#5ed3e6", "#ff8ac0", "#b2dd5a"};

	fprintf(out, "<style>\n.bg{fill:#ffffff}.ink{fill:#1b1f24}.dim{fill:#57606a}.grid{stroke:#d0d7de;stroke-width:1}"
		     ".axis{stroke:#57606a;stroke-width:1.2}\ntext{font-family:sans-serif;font-size:13px}"
		     ".title{font-size:17px;font-weight:600}.line{fill:none;stroke-width:2;stroke-linejoin:round}\n");
	for (int i = 0; i < 8; i++)
		fprintf(out, ".c%d{stroke:%s}", i, light[i]);
	fprintf(out, ".c8{stroke:#6e7781}\n@media (prefers-color-scheme:dark){.bg{fill:#0d1117}.ink{fill:#e6edf3}.dim{fill:#9da7b3}"
		     ".grid{stroke:#30363d}.axis{stroke:#9da7b3}");
	for (int i = 0; i < 8; i++)
		fprintf(out, ".c%d{stroke:%s}", i, dark[i]);
	fprintf(out, ".c8{stroke:#9da7b3}}\n</style>\n");
}

static void put_x_axis(const struct plot *p)
{
	for (int n = 0; n <= (int)p->nines; n++) {
		double x = at_x(p, n);
		fprintf(p->out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", x, x, TOP,
			TOP + PLOT_HEIGHT);
		fprintf(p->out, "<text class=\"dim\" text-anchor=\"middle\" x=\"%.1f\" y=\"%d\">", x, TOP + PLOT_HEIGHT + 20);
		if (n == 0)
			fprintf(p->out, "0</text>\n");
		else if (n <= 2)
			fprintf(p->out, "%s</text>\n", n == 1 ? "90" : "99");
		else
			fprintf(p->out, "99.%.*s</text>\n", n - 2, "99999999");
	}
	double x50 = at_x(p, log10(2));
	fprintf(p->out, "<line class=\"grid\" stroke-dasharray=\"3 3\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", x50, x50,
		TOP, TOP + PLOT_HEIGHT);
	fprintf(p->out, "<text class=\"dim\" text-anchor=\"middle\" x=\"%.1f\" y=\"%d\">50</text>\n", x50, TOP + PLOT_HEIGHT + 20);
	fprintf(p->out, "<text class=\"ink\" text-anchor=\"middle\" x=\"%d\" y=\"%d\">percentile of deliveries (%%)</text>\n",
		LEFT + (WIDTH - LEFT - RIGHT) / 2, TOP + PLOT_HEIGHT + 44);
}

static void put_y_axis(const struct plot *p)
{
	for (double decade = p->low_ns; decade <= p->high_ns * 1.01; decade *= 10) {
		double y = at_y(p, decade);
		const char *unit = decade >= 1e9 ? "s" : decade >= 1e6 ? "ms" : decade >= 1e3 ? "&#181;s" : "ns";
		double shown = decade >= 1e9 ? decade / 1e9 : decade >= 1e6 ? decade / 1e6 : decade >= 1e3 ? decade / 1e3 : decade;
		fprintf(p->out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT, WIDTH - RIGHT, y, y);
		fprintf(p->out, "<text class=\"dim\" text-anchor=\"end\" x=\"%d\" y=\"%.1f\">%.0f %s</text>\n", LEFT - 8, y + 4,
			shown, unit);
		for (int m = 2; m < 10 && decade * m < p->high_ns; m++)
			fprintf(p->out, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>\n", LEFT, LEFT + 4,
				at_y(p, decade * m), at_y(p, decade * m));
	}
	fprintf(p->out,
		"<text class=\"ink\" text-anchor=\"middle\" transform=\"translate(18 %d) rotate(-90)\">latency from the intended "
		"send"
		" time</text>\n",
		TOP + PLOT_HEIGHT / 2);
}

static void put_series(const struct plot *p, const struct series *s)
{
	double end = fmin(log10((double)s->hist->count), p->nines);

	fprintf(p->out, "<polyline class=\"line c%d\"%s%s%s points=\"", s->colour, s->dash[0] ? " stroke-dasharray=\"" : "",
		s->dash, s->dash[0] ? "\"" : "");
	for (int i = 0; i <= POINTS; i++) {
		double nines = end * i / POINTS, share = 1 - pow(10, -nines);
		uint64_t ns = i == POINTS ? s->hist->max : tb_hist_percentile(s->hist, (uint32_t)(share * 1e6) + 1);
		fprintf(p->out, "%.1f,%.1f ", at_x(p, nines), at_y(p, (double)(ns ? ns : 1)));
	}
	fprintf(p->out, "\"/>\n");
}

static void put_legend(const struct plot *p, int i)
{
	const struct series *s = &p->series[i];
	int y = TOP + PLOT_HEIGHT + 72 + i * LEGEND_LINE;
	double p50_us = (double)tb_hist_percentile(s->hist, 500000) / 1e3,
	       p99_us = (double)tb_hist_percentile(s->hist, 990000) / 1e3;

	fprintf(p->out, "<line class=\"line c%d\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"%s%s%s/>\n", s->colour, LEFT, LEFT + 36,
		y - 4, y - 4, s->dash[0] ? " stroke-dasharray=\"" : "", s->dash, s->dash[0] ? "\"" : "");
	fprintf(p->out, "<text class=\"ink\" x=\"%d\" y=\"%d\">", LEFT + 46, y);
	put_escaped(p->out, s->label);
	fprintf(p->out, "<tspan class=\"dim\" dx=\"14\">p50 %.1f &#181;s, p99 %.1f &#181;s, %llu samples</tspan></text>\n", p50_us,
		p99_us, (unsigned long long)s->hist->count);
}

void tb_report_svg(const struct tb_report *rep, FILE *out)
{
	struct plot p = {.out = out};
	const struct tb_load *l = &rep->options->load;

	collect(&p, rep);
	scale(&p);
	int height = TOP + PLOT_HEIGHT + 84 + p.count * LEGEND_LINE;
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" "
		"aria-label=\"Latency by percentile\">\n",
		WIDTH, height, WIDTH, height);
	put_style(out);
	fprintf(out, "<rect class=\"bg\" width=\"%d\" height=\"%d\"/>\n", WIDTH, height);
	fprintf(out, "<text class=\"ink title\" x=\"%d\" y=\"28\">Tick-to-delivery latency by percentile</text>\n", LEFT);
	fprintf(out, "<text class=\"dim\" x=\"%d\" y=\"48\">1 publisher, %u subscriber%s, %llu ticks/s, %u bytes</text>\n", LEFT,
		l->subscribers, l->subscribers == 1 ? "" : "s", (unsigned long long)l->rate_per_s, l->size_bytes);
	put_x_axis(&p);
	put_y_axis(&p);
	for (int i = 0; i < p.count; i++)
		put_series(&p, &p.series[i]);
	for (int i = 0; i < p.count; i++)
		put_legend(&p, i);
	fprintf(out, "</svg>\n");
}
