# Unit tests of tickbench; each line names the objects that are linked.
$(eval $(call unit,test_tickbench_hist,$(call objs,tools/tickbench,hist),-lm))
$(eval $(call unit,test_tickbench_track,$(call objs,tools/tickbench,track),))
$(eval $(call unit,test_tickbench_wire,$(call objs,tools/tickbench,wire conn sock),))
$(eval $(call unit,test_tickbench_sched,$(call objs,tools/tickbench,hist wire conn sock track topology pub findmax load),-lm -pthread))
$(eval $(call unit,test_tickbench_options,$(call objs,tools/tickbench,options port_device topology wire conn sock),))
$(eval $(call unit,test_tickbench_report,$(call objs,tools/tickbench,hist wire conn sock track topology pub load report_text report_json report_svg),-ljansson -lm -pthread))
$(eval $(call unit,test_tickbench_transport,$(call objs,tools/tickbench,wire conn sock port_device),))
