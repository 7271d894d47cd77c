# The AMQP machine of a worker. Front: wire, connections, channels, declarations. Back: messages, queues, delivery, the FIB.
AMQP_FRONT_OBJS := $(call objs,amqp,frame method connection channel declare send timer broker)
AMQP_BACK_OBJS := $(call objs,amqp,pool message queue consumer settle props basic whole confirm deliver fib dump route rows back check \
	peer remote mirror)
AMQP_TABLE_OBJS := $(call objs,amqp,table header_rule)
AMQP_OBJS := $(AMQP_FRONT_OBJS) $(AMQP_BACK_OBJS) $(AMQP_TABLE_OBJS)
