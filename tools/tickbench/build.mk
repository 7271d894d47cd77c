# tickbench: the load generator and latency meter. It needs libc alone (and libm for the reports).
TICKBENCH_OBJS := $(call objs,tools/tickbench,hist wire conn track topology pub load echo findmax options report_text report_json report_svg)
$(eval $(call program,tickbench,$(TICKBENCH_OBJS) $(call objs,tools/tickbench,tickbench),-lm -pthread))
