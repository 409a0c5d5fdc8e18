analyze
  findrange1
    preprocess
      numbers
  findrange2
    preprocess
      numbers
