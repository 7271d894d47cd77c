include tools/tickbench/build.mk
